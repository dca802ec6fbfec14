"""Shards with a hash per record: tables in parquet, tensors in safetensors.

A flipped bit passes silently through safetensors, parquet without checksums, Arrow and tar. So
every record carries the sha256 of its fields, and reading checks it: damage is an error that names
the shard and the record, before anything uses the bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.artifacts import canonical_json
from distillery.core.errors import DamagedError
from distillery.core.hf_features import hf_metadata
from distillery.core.publishing import publish

HASH_COLUMN = "record_sha256"
_RECORDS = "records"
_GROUP_BYTES = 2**26  # of a row group of a table, before compression
_BATCH_ROWS = 2**10


def shard_name(index: int, suffix: str) -> str:
    """`00007.parquet` for (7, "parquet")."""
    return f"{index:05d}.{suffix}"


def list_shards(folder: Path, suffix: str = "parquet") -> list[Path]:
    """The shards of one folder in order; an empty folder is an error."""
    shards = sorted(folder.glob(f"[0-9]*.{suffix}"))
    if not shards:
        raise DamagedError(f"{folder}: no .{suffix} shards; rerun the stage that makes it")
    return shards


def hash_record(record: Mapping[str, Any]) -> str:
    """sha256 over the fields in name order; bytes by their hash, nested ones too."""
    return hashlib.sha256(canonical_json(_hashable(record)).encode()).hexdigest()


def _hashable(value: Any) -> Any:
    if isinstance(value, bytes):
        return "sha256:" + hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        return {name: _hashable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hashable(item) for item in value]
    if isinstance(value, float):
        return repr(value)
    return value


def write_table_shard(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows (dicts with the schema's fields) as one parquet shard, atomically.

    Columns of struct{bytes, path} are declared as images, so `datasets.load_dataset` decodes them.
    """
    with open_table_shard(path, schema) as add:
        for row in rows:
            add(row)


@contextmanager
def open_table_shard(
    path: Path, schema: pa.Schema
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that adds a row; the shard appears, atomically, when the block ends.

    A row group is written whenever 64 MiB of bytes wait, so memory does not grow with the shard.
    """
    fields = [*schema, pa.field(HASH_COLUMN, pa.string())]
    full = pa.schema(fields, metadata=hf_metadata(fields))
    options = {"compression": "zstd", "write_page_checksum": True}
    with publish(path) as partial, pq.ParquetWriter(partial, full, **options) as writer:
        waiting = _Waiting(writer, full)
        yield waiting.add
        if len(waiting) or not waiting.num_groups:
            waiting.write()


class _Waiting:
    """Rows that wait to become a row group."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self.num_groups = self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._rows) + sum(map(len, self._batches))

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append({**row, HASH_COLUMN: hash_record(row)})
        self._num_bytes += _count_bytes(row)
        if len(self._rows) == _BATCH_ROWS:  # a dict takes some times the bytes that are in it
            self._pack()
        if self._num_bytes >= _GROUP_BYTES:
            self.write()

    def write(self) -> None:
        self._pack()
        waiting = pa.Table.from_batches(self._batches, self._schema)
        self._writer.write_table(waiting.combine_chunks())
        self.num_groups += 1
        self._batches, self._num_bytes = [], 0

    def _pack(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _count_bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_count_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(_count_bytes, value))
    return len(value) if isinstance(value, bytes | str) else 0


def image_type() -> pa.StructType:
    """Arrow type of an encoded image as Hugging Face datasets store it."""
    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read_table_shard(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of one shard. All columns are hashed unless `columns` leaves some out.

    With `columns` the record hash can't be checked (it covers the whole row): page checksums are.
    """
    return list(iter_table_shard(path, columns))


def iter_table_shard(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of `read_table_shard`, with one row group in memory at a time."""
    wanted = None if columns is None else list(columns)
    with _opened(path, wanted or []) as file:
        for group in range(file.num_row_groups):
            for batch in file.read_row_group(group, columns=wanted).to_batches(_BATCH_ROWS):
                rows = batch.to_pylist()
                yield from rows if wanted is not None else _checked(rows, path)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of one shard; as above, page checksums are checked."""
    with _opened(path, columns) as file:
        return file.read(list(columns))


def iter_rows_at(path: Path, column: str, numbers: np.ndarray) -> Iterator[Any]:
    """The values of a column in the rows of these numbers, ascending; a row group at a time."""
    with _opened(path, [column]) as file:
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            low, high = np.searchsorted(numbers, [first, end])
            if high > low:
                read = file.read_row_group(group, columns=[column]).column(0)
                yield from (v.as_py() for v in read.take(pa.array(numbers[low:high] - first)))
            first = end


@contextmanager
def _opened(path: Path, columns: Iterable[str]) -> Iterator[pq.ParquetFile]:
    """A shard that has these columns; what is damaged is a DamagedError."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if lacking := set(columns) - set(file.schema_arrow.names):
                raise ValueError(f"no column {', '.join(sorted(lacking))}")
            yield file
    except DamagedError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path}: unreadable ({error}); rerun the stage that makes it") from None


def _checked(rows: list[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    for row in rows:
        expected = row.pop(HASH_COLUMN, None)
        if hash_record(row) != expected:
            key = row.get("key")
            raise DamagedError(f"{path}: record {key} is damaged; rerun the stage that makes it")
        yield row


def read_table(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of all shards in a folder, in order, checked; one row group in memory at a time."""
    for path in list_shards(folder):
        yield from iter_table_shard(path)


def write_tensor_shard(path: Path, keys: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write stacked arrays [num_records, ...] as one safetensors shard, atomically.

    The header carries the keys and, per record, a sha256 over its slice of every array.
    """
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if any(len(array) != len(keys) for array in contiguous.values()):
        raise ValueError(f"{path}: every array needs one row per key")
    hashes = [hash_slices(contiguous, i, key) for i, key in enumerate(keys)]
    records = json.dumps({"keys": list(keys), "sha256": hashes})
    with publish(path) as partial:  # safetensors writes several metadata entries in random order
        save_file(contiguous, partial, metadata={_RECORDS: records})


def read_tensor_shard(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Keys and stacked arrays of one shard; a damaged record is an error that names it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            keys, hashes = read_records(file.metadata())
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if any(len(array) != len(keys) for array in arrays.values()):
            raise ValueError("every array needs one row per key")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: unreadable ({error}); rerun the stage that makes it") from None
    for index, (key, expected) in enumerate(zip(keys, hashes, strict=True)):
        if hash_slices(arrays, index, key) != expected:
            raise DamagedError(f"{path}: record {key} is damaged; rerun the stage that makes it")
    return keys, arrays


def read_records(metadata: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Keys and hashes in a tensor shard's header; ValueError, KeyError or TypeError if damaged."""
    records = json.loads(metadata[_RECORDS])
    if len(records["keys"]) != len(records["sha256"]):
        raise ValueError("as many hashes as keys are needed")
    return records["keys"], records["sha256"]


def hash_slices(arrays: Mapping[str, np.ndarray], index: int, key: str) -> str:
    """sha256 of record `index`: its key and its slice of every array, with name, dtype, shape."""
    digest = hashlib.sha256(f"{key};".encode())
    for name in sorted(arrays):
        row = np.ascontiguousarray(arrays[name][index])
        digest.update(f"{name}:{row.dtype}:{row.shape};".encode())
        digest.update(row.tobytes())
    return digest.hexdigest()
