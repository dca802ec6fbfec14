"""Errors a user can cause; every front end prints their message on one line and exits with 2."""

__computes__ = False  # texts, not part of any stage's code


class DistilleryError(Exception):
    """Bad input or environment. The message says what is wrong, where, and what to do about it."""


class DamagedError(DistilleryError):
    """Stored bytes do not match their recorded hash, or a file is cut short."""


def reason_of(error: BaseException) -> str:
    """What a library's error says, on one line; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def kind_and_reason(error: BaseException) -> str:
    """The same with the error's kind, for those whose text alone says little."""
    kind, reason = type(error).__name__, reason_of(error)
    return kind if reason == kind else f"{kind}: {reason}"
