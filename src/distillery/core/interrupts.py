"""Ctrl-C, SIGTERM and SIGHUP end a command in one line, with nothing half-written.

In: a block of code. Out: an exception in it when a signal comes, so that it cleans up behind it, or
at its end, where it holds the signal; while modules are imported, when there is nothing to clean
up, an end at once. SIGTERM is what batch systems send at a time limit and containers when they
stop, SIGHUP what a lost connection sends. A signal that the caller had ignored (`nohup`) stays
ignored.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

__computes__ = False  # it ends things

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GO_ON = "run the same command to go on"


class Interrupted(BaseException):
    """A signal came. No KeyboardInterrupt, which libraries turn into what they like."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; {_GO_ON}")
        self.exit_code = 128 + number


def end_at_once_while_importing() -> None:
    """In a command of this package a signal is one line and the end: nothing is begun yet."""
    # "-m": only while Python looks for the module to run.
    if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "distillery"):
        _handle(_end)


@contextlib.contextmanager
def as_errors() -> Iterator[None]:
    """In this block a signal raises Interrupted; only the main thread can ask for it."""
    before = _handle(_raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Held:
    """A signal that waits, once one came."""

    number: int | None = None


@contextlib.contextmanager
def held(may_end: Callable[[], bool]) -> Iterator[Held]:
    """In this block the first signal waits for its end, unless it `may_end` at once.

    A second one is as without the block, and so is the first when the block is left.
    """
    waiting = Held()

    def note(number: int, _: FrameType | None) -> None:
        restore()
        if may_end():
            signal.raise_signal(number)
        waiting.number = number

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = _handle(note)
    try:
        yield waiting
    finally:
        restore()
    if waiting.number is not None:
        signal.raise_signal(waiting.number)


def report(name: str, error: BaseException) -> int:
    """Say it in one line; returns the exit code as shells count it: 130, 143, 129."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"{name}: {str(error) or f'interrupted; {_GO_ON}'}", file=sys.stderr)
    return error.exit_code if isinstance(error, Interrupted) else 128 + signal.SIGINT


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, object]:
    """Set it, where signals are not ignored; returns what was set before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [n for n in _SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in numbers}


def _raise(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _end(number: int, _: FrameType | None) -> None:
    os.write(2, f"{Interrupted(number)}\n".encode())
    os._exit(128 + number)
