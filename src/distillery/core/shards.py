"""Shards with a hash per record: tables in parquet, tensors in safetensors.

A flipped bit passes silently through safetensors, parquet without checksums, Arrow and tar. So
every record carries the sha256 of its fields, and reading checks it: damage is an error that names
the shard and the record, before anything uses the bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.artifacts import canonical_json, publish
from distillery.core.errors import DamagedError

HASH_COLUMN = "record_sha256"
_RECORDS = "records"
HF_IMAGE = {"_type": "Image"}


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
    """sha256 over the fields in name order; bytes by their hash, nested mappings too."""
    return hashlib.sha256(canonical_json(_hashable(record)).encode()).hexdigest()


def _hashable(value: Any) -> Any:
    if isinstance(value, bytes):
        return "sha256:" + hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        return {name: _hashable(item) for name, item in value.items()}
    if isinstance(value, float):
        return repr(value)
    return value


def write_table_shard(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows (dicts with the schema's fields) as one parquet shard, atomically.

    Columns of struct{bytes, path} are declared as images, so `datasets.load_dataset` decodes them.
    """
    hashed = [{**row, HASH_COLUMN: hash_record(row)} for row in rows]
    fields = [*schema, pa.field(HASH_COLUMN, pa.string())]
    table = pa.Table.from_pylist(hashed, schema=pa.schema(fields, metadata=_hf_metadata(fields)))
    with publish(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


def _hf_metadata(fields: Sequence[pa.Field]) -> dict[str, str]:
    features = {f.name: HF_IMAGE if pa.types.is_struct(f.type) else _hf_value(f) for f in fields}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _hf_value(field: pa.Field) -> dict[str, str]:
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(field.type), str(field.type)), "_type": "Value"}


def image_type() -> pa.StructType:
    """Arrow type of an encoded image as Hugging Face datasets store it."""
    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read_table_shard(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of one shard. All columns are hashed unless `columns` leaves some out.

    With `columns` the record hash can't be checked (it covers the whole row): page checksums are.
    """
    try:
        wanted = None if columns is None else list(columns)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=wanted)
        if lacking := set(wanted or []) - set(table.column_names):
            raise ValueError(f"no column {', '.join(sorted(lacking))}")
        rows = table.to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path}: unreadable ({error}); rerun the stage that makes it") from None
    if columns is None:
        for row in rows:
            expected = row.pop(HASH_COLUMN, None)
            if hash_record(row) != expected:
                key = row.get("key")
                raise DamagedError(
                    f"{path}: record {key} is damaged; rerun the stage that makes it"
                )
    return rows


def read_table(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of all shards in a folder, in order, checked; one shard in memory at a time."""
    for path in list_shards(folder):
        yield from read_table_shard(path, columns)


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
