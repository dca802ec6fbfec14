"""Whether the files of a source have the scores that filters ask for, before any is rewritten.

In: a source, its path and what is asked for. Out: nothing, or the error of `curation.asked`. Of
each table are read its columns' names, and rows up to the first by which every score has had a
number: a few, unless there is none. A file that can't be read is left to its reader. Not here:
`datasets`, whose rows may lie on the hub.
"""

import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.errors import DamagedError
from distillery.data.curation import asked as asking
from distillery.data.curation.asked import Asked
from distillery.data.ingest.readers.folder import holds_pictures, list_metadata
from distillery.data.ingest.readers.folder_tables import iter_table_rows
from distillery.data.ingest.readers.rows import rows_of
from distillery.data.ingest.readers.tar import iter_json
from distillery.data.ingest.readers.urls import iter_rows, list_tables
from distillery.data.ingest.sample import COLUMN_ALIASES, SCORE_NAMES, list_inputs

_SCORE_COLUMNS = {alias for name in SCORE_NAMES for alias in COLUMN_ALIASES[name]}
_BATCH_ROWS = 1024
_UNREADABLE = (
    OSError, ValueError, EOFError, RecursionError, pa.ArrowException, tarfile.TarError
)  # fmt: skip
Rows = Iterable[Mapping[str, Any]]


def require_scores(source: str, path: Path, asked: Sequence[Asked]) -> None:
    """Raise AbsentScoreError for the first file that lacks a score, or has no number for it."""
    if not asked or not path.exists():
        return
    for file, columns, rows in _TABLES[source](path):
        try:
            asking.require_scores(file, rows, asked, columns)
        except (*_UNREADABLE, DamagedError):
            continue


def _of_parquet(path: Path) -> Iterator[tuple[Path, Sequence[str], Rows]]:
    for file in list_inputs(path, "parquet"):
        yield file, *_parquet(file)


def _of_urls(path: Path) -> Iterator[tuple[Path, Sequence[str], Rows]]:
    for table in list_tables(path):
        text_rows = (row for row in iter_rows(table) if row is not None)
        yield table, *(_parquet(table) if _is_parquet(table) else ((), text_rows))


def _of_folder(path: Path) -> Iterator[tuple[Path, Sequence[str], Rows]]:
    tables = list_metadata(path)
    for table in tables:
        yield table, *(_parquet(table) if _is_parquet(table) else ((), iter_table_rows(table)))
    if not tables and holds_pictures(path):
        yield path, (), [{}]


def _of_tars(path: Path) -> Iterator[tuple[Path, Sequence[str], Rows]]:
    for tar in list_inputs(path, "tar"):
        beside = tar.with_suffix(".parquet")
        columns, rows = _parquet(beside) if beside.is_file() else ((), ())
        yield tar, columns, _in_turn(rows, iter_json(tar))


def _in_turn(rows: Rows, others: Rows) -> Rows:
    """Rows of a table, then those of JSON members; of a tar without either, one without names."""
    yield {}
    yield from rows
    yield from others


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


def _parquet(file: Path) -> tuple[Sequence[str], Rows]:
    """Names of the columns, and rows of those that may be scores."""
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return (), ()
    inner = [f"{f.name}.{f.type.field(i).name}" for f in schema if pa.types.is_struct(f.type)
             for i in range(f.type.num_fields)]  # fmt: skip
    wanted = [name for name in schema.names if name.lower() in _SCORE_COLUMNS]
    return [*schema.names, *inner], _rows(file, wanted) if wanted else ()


def _rows(file: Path, columns: list[str]) -> Rows:
    """Rows of some columns; of a row group in which they are null one row, without them."""
    with pq.ParquetFile(file) as table:
        for group in range(table.num_row_groups):
            if _is_null(table.metadata.row_group(group), columns):
                yield {}
                continue
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
                yield from rows_of(batch)


def _is_null(group: Any, columns: Sequence[str]) -> bool:
    """Whether the statistics say so of all of these columns."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    named = [c for c in chunks if c.path_in_schema.partition(".")[0] in columns]
    counts = [c.statistics.null_count if c.is_stats_set else None for c in named]
    return all(count == group.num_rows for count in counts)


_TABLES = {
    "parquet": _of_parquet,
    "urls": _of_urls,
    "folder": _of_folder,
    "webdataset": _of_tars,
}
