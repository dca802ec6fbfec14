"""Rows of a csv or tsv file that a stray quote has swallowed.

In: the lines that became one record. Out: nothing, or an error that names the one that is a row of
its own. A quote that is not closed ends at the next one, some lines on, and what stands between
becomes part of a text, in silence. A text of several lines is read as it is. Not here: reading the
file.
"""

import csv
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillery.core.errors import DistilleryError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
REMEDY = "double it, quote the whole field, or write its text on one line"


class Remembered:
    """Lines on their way to a csv reader, which can be asked for those that it took."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._taken = iter(lines), []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def take(self) -> list[str]:
        """Those since the last call, without blank ones before the first."""
        taken, self._taken = self._taken, []
        return list(itertools.dropwhile(lambda line: not line.strip(), taken))


@dataclass(frozen=True)
class Rows:
    """What a row looks like: its columns' number, and one of them with what stands there."""

    delimiter: str
    num_columns: int
    column: int
    is_value: Callable[[str], bool]

    def require_closed(self, table: Path, last: int, lines: Sequence[str]) -> None:
        """DistilleryError where a record of these lines, up to line `last`, holds another row."""
        if (number := self.swallowed(lines)) is not None:
            first = last - len(lines) + 1
            raise DistilleryError(
                f"{table}:{first}: a quote that opens here swallows line {first + number}, which "
                f"looks like a row of its own; {REMEDY}"
            )

    def swallowed(self, lines: Sequence[str]) -> int | None:
        """Number of the line, from 0, that a record of these lines should not hold, or None.

        It is a row by itself; or text goes on behind the closing quote, as no writer leaves it.
        """
        if len(lines) < 2:
            return None
        found = next((n for n, line in enumerate(lines[1:], start=1) if self._is_row(line)), None)
        if found is None and not _is_strict(lines, self.delimiter):
            return len(lines) - 1
        return found

    def _is_row(self, line: str) -> bool:
        """Whether there are enough columns, and the one seen from either end is what it should."""
        values = [value.strip(' "') for value in line.rstrip("\r\n").split(self.delimiter)]
        if len(values) < self.num_columns:
            return False
        return any(
            map(self.is_value, (values[self.column], values[self.column - self.num_columns]))
        )


def require_closed_tables(
    place: Path, columns: Collection[str], is_value: Callable[[str], bool]
) -> None:
    """DistilleryError where a csv or tsv file, or one below a folder, holds rows in a quote.

    Looked at are files that have one of these columns. For readers that do not look themselves.
    """
    csv.field_size_limit(2**24)
    for table in [place] if place.is_file() else sorted(place.rglob("*.[ct]sv")):
        if table.suffix.lower() in _DELIMITERS and table.is_file():
            try:
                _require_closed_table(table, columns, is_value)
            except csv.Error as error:
                raise DistilleryError(f"{table}: not valid CSV ({error}); correct it") from None


def _require_closed_table(
    table: Path, columns: Collection[str], is_value: Callable[[str], bool]
) -> None:
    delimiter = _DELIMITERS[table.suffix.lower()]
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = Remembered(file)
        reader = csv.reader(lines, delimiter=delimiter)
        names = next(reader, [])
        column = next((n for n, name in enumerate(names) if name in columns), None)
        if column is not None:
            rows = Rows(delimiter, len(names), column, is_value)
            rows.require_closed(table, reader.line_num, lines.take())
            for _ in reader:
                rows.require_closed(table, reader.line_num, lines.take())


def _is_strict(lines: Sequence[str], delimiter: str) -> bool:
    try:
        next(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return False
    return True
