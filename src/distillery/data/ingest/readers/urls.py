"""Reads lists of image URLs with captions, as LAION and COYO publish them.

In: a parquet, csv, tsv or jsonl file, or a folder of them. Out: `UrlRow`s, file names sorted, rows
as they are stored, a batch in memory at a time. URL, caption and score columns are found under the
names of `ingest.sample`, in any case. A line that can't be read is a row too, marked as damaged, so
that it is counted. Rows that filters refuse by their columns are counted and left out; of parquet
they never become objects. Nothing is downloaded here.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.errors import DamagedError, DistilleryError
from distillery.data.curation.columns import column_filters, first_refusal, judge_table
from distillery.data.curation.filters.base import Filter
from distillery.data.ingest.readers.rows import open_parquet, rows_of
from distillery.data.ingest.readers.url_csv import csv_names, read_csv
from distillery.data.ingest.sample import (
    CAPTION_NAMES,
    COLUMN_ALIASES,
    READ_NAMES,
    find_caption,
    find_metadata,
    find_url,
    require_files,
    walk_files,
)
from distillery.data.ingest.text import BadTextError

_SUFFIXES = (".csv", ".jsonl", ".parquet", ".tsv")
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class UrlRow:
    """One row of a list; `key` is its number within the file `source`. `url` is as it stands."""

    key: str
    source: str
    url: Any = None
    caption: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    is_damaged: bool = False


def list_tables(path: Path) -> list[Path]:
    """`path` if it is a file, else all lists below it, sorted; their columns are checked.

    Raises DistilleryError naming the file that is missing, unreadable or lacks a column.
    """
    if not path.exists():
        raise DistilleryError(f"{path}: not found; set ingest.path to your list of URLs")
    files = [path] if path.is_file() else walk_files(path)
    tables = require_files([file for file in files if file.suffix.lower() in _SUFFIXES])
    if not tables:
        raise DistilleryError(
            f"{path}: no {', '.join(_SUFFIXES)} file here or below; check ingest.path"
        )
    for table in tables:
        _require_columns(table, _columns(table))
    return tables


def count_rows(tables: Iterable[Path]) -> int:
    """Rows of all lists; text files are read through once, which costs seconds per million."""
    return sum(
        pq.read_metadata(table).num_rows
        if table.suffix.lower() == ".parquet"
        else sum(1 for _ in iter_rows(table))
        for table in tables
    )


def read_urls(
    tables: Iterable[Path],
    filters: Sequence[Filter] = (),
    refused: Counter[str] | None = None,
) -> Iterator[UrlRow]:
    """The rows of all lists, in order, that no filter refuses by URL or scores.

    `refused` counts the others by reason, up to the last row that was taken when this is closed.
    """
    refused = Counter() if refused is None else refused
    judging = column_filters(filters)
    for table in tables:
        is_parquet = table.suffix.lower() == ".parquet"
        verdicts = judge_table(table, judging, COLUMN_ALIASES) if judging and is_parquet else None
        if verdicts is None:
            yield from _judged(table, judging, refused)
        else:
            yield from _kept(table, verdicts, [rule.reason for rule in judging], refused)


def _judged(table: Path, judging: Sequence[Filter], refused: Counter[str]) -> Iterator[UrlRow]:
    """The rows of any table that stay, each judged as an object."""
    for number, row in enumerate(iter_rows(table)):
        read = _as_row(row, str(number), table.name)
        reason = None if read.is_damaged else first_refusal(read.metadata, judging)
        if reason is None:
            yield read
        else:
            refused[reason] += 1


def _kept(
    table: Path, verdicts: np.ndarray, reasons: Sequence[str], refused: Counter[str]
) -> Iterator[UrlRow]:
    """The rows of a parquet file whose verdict is 0; the others, also damaged ones, are counted."""
    num_seen = 0
    numbers = np.flatnonzero(verdicts == 0).tolist()
    try:
        for number, row in zip(numbers, _read_parquet(table, verdicts == 0), strict=True):
            num_seen = number + 1
            yield _as_row(row, str(number), table.name)
        num_seen = len(verdicts)
    finally:
        counts = np.bincount(verdicts[:num_seen], minlength=len(reasons) + 1)[1:]
        refused.update({name: int(n) for name, n in zip(reasons, counts, strict=True) if n})


def _as_row(row: dict[str, Any] | None, key: str, source: str) -> UrlRow:
    try:
        if row is not None:
            return UrlRow(key, source, find_url(row), find_caption(row), find_metadata(row))
    except BadTextError:
        pass
    return UrlRow(key, source, is_damaged=True)


def iter_rows(table: Path) -> Iterator[dict[str, Any] | None]:
    """A table's rows as they stand; None for one that can't be read."""
    suffix = table.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(table)
    return _read_jsonl(table) if suffix == ".jsonl" else read_csv(table)


def _read_parquet(table: Path, keep: np.ndarray | None = None) -> Iterator[dict[str, Any] | None]:
    """All rows, or those that a mask keeps; row groups without any are not read."""
    try:
        with open_parquet(table) as file:
            wanted = [n for n in file.schema_arrow.names if n.lower() in READ_NAMES]
            first = 0
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                if keep is None or keep[first:end].any():
                    batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted)
                    yield from _rows_to_keep(batches, keep, first)
                first = end
    except (OSError, pa.ArrowException) as error:
        raise _damaged(table, error) from None


def _rows_to_keep(
    batches: Iterable[pa.RecordBatch], keep: np.ndarray | None, first: int
) -> Iterator[dict[str, Any]]:
    for batch in batches:
        end = first + batch.num_rows
        yield from rows_of(batch if keep is None else batch.filter(pa.array(keep[first:end])))
        first = end


def _read_jsonl(table: Path) -> Iterator[dict[str, Any] | None]:
    with table.open("rb") as file:
        for line in file:
            if line.strip():
                yield _parse_json(line)


def _parse_json(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _columns(table: Path) -> list[str]:
    try:
        if table.suffix.lower() == ".parquet":
            return pq.read_schema(table).names
        if table.suffix.lower() == ".jsonl":
            return list(next((row for row in _read_jsonl(table) if row), {}))
        return csv_names(table)
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise _damaged(table, error) from None


def _require_columns(table: Path, columns: list[str]) -> None:
    folded = {str(name).lower() for name in columns}
    if "url" not in folded or not folded.intersection(CAPTION_NAMES):
        raise DistilleryError(
            f"{table}: needs a column url and one of {', '.join(CAPTION_NAMES)}, has "
            f"{', '.join(map(str, columns)) or 'none'}; rename them or check ingest.path"
        )


def _damaged(table: Path, error: Exception) -> DamagedError:
    return DamagedError(f"{table}: not readable ({error}); fetch or write it again")
