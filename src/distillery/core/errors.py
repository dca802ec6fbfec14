"""Errors a user can cause; every front end prints their message on one line and exits with 2."""


class DistilleryError(Exception):
    """Bad input or environment. The message says what is wrong, where, and what to do about it."""


class DamagedError(DistilleryError):
    """Stored bytes do not match their recorded hash, or a file is cut short."""
