"""Rows of an Arrow batch whose text may be no text.

In: a record batch as a parquet file from anywhere gives it; Arrow does not check text columns. Out:
dicts, in which a value that can't be decoded is an `Undecodable`. It decides nothing about them.
"""

from typing import Any

import pyarrow as pa

from distillery.data.ingest.text import Undecodable


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
