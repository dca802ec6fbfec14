"""Rows of parquet files whose text may be no text.

In: a parquet file from anywhere, of any size; a record batch of it, whose text Arrow does not
check. Out: the file, opened; dicts, in which a value that can't be decoded is an `Undecodable`. It
decides nothing about them.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.data.ingest.text import Undecodable

BUFFER_BYTES = 2**20  # of a column


def open_parquet(file: Path) -> pq.ParquetFile:
    """To be read in batches, with a mebibyte of each column in memory.

    As pyarrow opens it, all bytes that were read stay in memory until it is closed.
    """
    return pq.ParquetFile(
        file, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES
    )


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows; those of a batch with a damaged value are converted one value at a time."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):  # UnicodeDecodeError, dates beyond Python's
        names = batch.schema.names
        columns = [_values_of(batch.column(i)) for i in range(batch.num_columns)]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values_of(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        if len(column) == 1:
            return [Undecodable()]
        return [value for i in range(len(column)) for value in _values_of(column.slice(i, 1))]
