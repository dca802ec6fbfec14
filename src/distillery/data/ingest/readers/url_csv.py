"""Reads csv and tsv files of image URLs.

In: such a file. Out: its rows as they stand, None for one that can't be read, so that it is
counted. A quote that is never closed, or that swallows other rows, is an error: they would get lost
in silence. Not here: what the columns mean.
"""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from distillery.core.errors import DistilleryError
from distillery.data.quotes import REMEDY, Remembered, Rows

_MAX_FIELD_CHARS = 2**20
_MAX_RECORD_LINES = 100
# A scheme may be missing.
_URL = re.compile(r"(?:https?|ftp|s3|gs)://\S+|(?:[\w-]+\.)+[A-Za-z]{2,}/\S*", re.IGNORECASE)
_END = "\0end"  # a record of its own, but behind a quote that is never closed


def csv_names(table: Path) -> list[str]:
    """The names in its first line."""
    with _opened(table) as file:
        return next(_csv_reader(file, table), [])


def read_csv(table: Path) -> Iterator[dict[str, Any] | None]:
    """Its rows by column; None for one that can't be read.

    Raises DistilleryError naming the line of a quote that is not closed, or swallows rows.
    """
    with _opened(table) as file:
        lines = Remembered(itertools.chain(file, [_END]))
        reader = _csv_reader(lines, table)
        names = next(reader)
        column = next(n for n, name in enumerate(names) if name.lower() == "url")
        rows = Rows(_delimiter(table), len(names), column, _is_url)
        _require_closed(table, reader.line_num, lines.take(), names, rows)
        while True:
            try:
                values = next(reader)
            except csv.Error:  # the reader goes on with the next line
                values = None
            if values == [_END]:
                return
            _require_closed(table, reader.line_num, lines.take(), values, rows)
            if values is None:
                yield None
            elif values:
                fits = len(values) == len(names)
                yield dict(zip(names, values, strict=True)) if fits else None


def _require_closed(
    table: Path, last: int, lines: list[str], values: list[str] | None, rows: Rows
) -> None:
    """DistilleryError where a record that ends in line `last` holds lines that are not its own."""
    if len(lines) > _MAX_RECORD_LINES or (values and _END in values[-1]):
        raise DistilleryError(
            f"{table}:{last - len(lines) + 1}: a quote that opens here is closed nowhere near, and "
            f"would swallow the rows behind it; {REMEDY}"
        )
    rows.require_closed(table, last, lines)


def _is_url(text: str) -> bool:
    return _URL.fullmatch(text) is not None


def _opened(table: Path) -> TextIO:
    return table.open(encoding="utf-8-sig", errors="replace", newline="")


def _csv_reader(file: Iterable[str], table: Path) -> Iterator[list[str]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    return csv.reader(file, delimiter=_delimiter(table))


def _delimiter(table: Path) -> str:
    return "\t" if table.suffix.lower() == ".tsv" else ","
