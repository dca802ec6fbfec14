"""Errors a user can cause; every front end prints their message on one line and exits with 2."""

import contextlib
import errno
import os
from collections.abc import Iterator

__computes__ = False  # texts, not part of any stage's code

_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)
_DISK = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EUCLEAN)


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


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """A file that the system refuses, or whose disk fails, is a DistilleryError that names it."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno not in (*_RIGHTS, *_DISK):
            raise
        remedy = (
            "give this user the right to it, or name another"
            if error.errno in _RIGHTS
            else "its disk fails or has gone: look at it, and run again"
        )
        place, what = os.fsdecode(error.filename), os.strerror(error.errno)
        raise DistilleryError(f"{place}: {what}; {remedy}") from error
