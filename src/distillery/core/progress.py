"""Progress that stays readable: one bar on a terminal, now and then a line elsewhere.

Parallel jobs share one terminal under Snakemake, where redrawn bars overwrite each other. So the
bar is redrawn only where standard error is a terminal and no front end runs us; otherwise whole
lines are printed: the first after 10 seconds, then at every tenth of the work that is as far from
the last line, and once a minute whatever happens.
"""

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import tqdm

__computes__ = False  # texts, not part of any stage's code

T = TypeVar("T")
LINE_INTERVAL_S, SILENCE_S = 10.0, 60.0
_FORMAT = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"
_ENDLESS = "{desc}: {n_fmt} {unit}s [{elapsed}{postfix}]"
_counted: ContextVar[tqdm | None] = ContextVar("counted", default=None)


class _Lines(tqdm):
    """A bar of which each state that is shown is a line of its own."""

    def __init__(self, total: int | None, **options: Any) -> None:
        self._last = options["initial"], time.monotonic()  # count and time of the last line
        self._is_first, self._ended = True, threading.Event()
        super().__init__(
            total=total, file=io.StringIO(), bar_format=_FORMAT if total else _ENDLESS, miniters=1,
            mininterval=LINE_INTERVAL_S, **options,
        )  # fmt: skip
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def _keep_alive(self) -> None:
        while not self._ended.wait(SILENCE_S / 6):
            self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the state if a line is due; what tqdm calls in order to redraw the bar."""
        if self._is_due():
            self._last, self._is_first = (self.n, time.monotonic()), False
            sys.stderr.write(f"{self}\n")
            sys.stderr.flush()

    def _is_due(self) -> bool:
        count, at = self._last
        if self.disable:  # the bar ends
            return self._is_first or count != self.n
        is_news = self._is_first or (
            self.total and 10 * count // self.total != 10 * self.n // self.total
        )
        return time.monotonic() - at >= (LINE_INTERVAL_S if is_news else SILENCE_S)

    def close(self) -> None:
        self._ended.set()
        super().close()


def redraws() -> bool:
    """Whether a bar may redraw its line here."""
    return sys.stderr.isatty() and "DISTILLERY_FRONT_END" not in os.environ


def bar(total: int | None, label: str, *, initial: int = 0, unit: str = "step") -> tqdm:
    """A tqdm bar with count, elapsed time and ETA; call `update(n)` and `close()`.

    `total` None is an unknown number: no percentage and no ETA.
    """
    if total == 0:  # a bar of nothing would end at 0%
        return tqdm(total=0, disable=True)
    if redraws():
        return tqdm(total=total, desc=label, initial=initial, unit=unit, dynamic_ncols=True)
    return _Lines(total, desc=label, initial=initial, unit=unit)


def track(items: Collection[T], label: str, unit: str = "step") -> Iterator[T]:
    """Iterate with a bar."""
    with bar(len(items), label, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


@contextlib.contextmanager
def counting(progress: tqdm) -> Iterator[None]:
    """Meanwhile, move this bar by what `count` is told."""
    token = _counted.set(progress)
    try:
        yield
    finally:
        _counted.reset(token)


def count(number: int) -> None:
    """So many more are done, deep inside: a stage's code is the same with and without."""
    if (progress := _counted.get()) is not None:
        progress.update(number)
