"""Progress that stays readable: one bar on a terminal, one line every few seconds elsewhere.

Parallel jobs share one terminal under Snakemake, where redrawn bars overwrite each other. So the
bar is redrawn only where standard error is a terminal and no front end runs us; otherwise whole
lines with the stage's name, the count and the ETA are printed.
"""

import os
import sys
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

__computes__ = False  # texts, not part of any stage's code

T = TypeVar("T")
LINE_INTERVAL_S = 5.0
_FORMAT = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class _Lines:
    """A text stream that turns tqdm's carriage returns into lines."""

    def write(self, text: str) -> None:
        if line := text.replace("\r", "").strip():
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def redraws() -> bool:
    """Whether a bar may redraw its line here."""
    return sys.stderr.isatty() and "DISTILLERY_FRONT_END" not in os.environ


def bar(total: int | None, label: str, *, initial: int = 0, unit: str = "it") -> tqdm:
    """A tqdm bar with count, elapsed time and ETA; call `update(n)` and `close()`.

    `total` None is an unknown number: no percentage and no ETA.
    """
    if total == 0:  # a bar of nothing would end at 0%
        return tqdm(total=0, disable=True)
    if redraws():
        return tqdm(total=total, desc=label, initial=initial, unit=unit, dynamic_ncols=True)
    return tqdm(
        total=total, desc=label, initial=initial, unit=unit, file=_Lines(), ncols=100,
        mininterval=LINE_INTERVAL_S, maxinterval=LINE_INTERVAL_S,
        bar_format=None if total is None else _FORMAT,
    )  # fmt: skip


def track(items: Collection[T], label: str) -> Iterator[T]:
    """Iterate with a bar."""
    with bar(len(items), label) as progress:
        for item in items:
            yield item
            progress.update()
