"""Tells people which rows of a part could not be read.

In: a curated part. Out: no line, or one with how many there are, of which names, and why the first
one could not be read. All of them are in `rejected/`.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from distillery.data.curation.curate import REJECTED, UNREADABLE, read_part_columns

__computes__ = False  # text on the terminal

_MAX_DETAIL_CHARS = 120


def unreadable_lines(curated: Path, num_rows: int) -> Iterator[str]:
    """Of a part with `num_rows` rows in all."""
    num, first = 0, ""
    for table in read_part_columns(curated / REJECTED, ["reason", "detail", "name", "key"]):
        found = table.filter(pc.equal(table["reason"], UNREADABLE))
        if len(found) and not first:
            row = found.slice(0, 1).to_pylist()[0]
            first = f"{row['name'] or row['key']}: {row['detail'][:_MAX_DETAIL_CHARS]}"
        num += len(found)
    if num:
        yield f"{num} of {num_rows} rows are unreadable, first {first}; all are in {REJECTED}/"
