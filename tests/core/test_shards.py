"""One flipped bit, anywhere in a shard, is found before its bytes are used."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distillery.core import shards
from distillery.core.errors import DamagedError
from distillery.data.curation.curate import CURATED_SCHEMA, REJECTED_SCHEMA

SCHEMA = pa.schema(
    [("key", pa.string()), ("image", shards.image_type()), ("width", pa.int64()),
     ("score", pa.float64())]
)  # fmt: skip


def _rows() -> list[dict]:
    generator = np.random.default_rng(0)
    return [
        {"key": f"{i:03d}", "image": {"bytes": generator.bytes(200), "path": f"{i}.png"},
         "width": i, "score": None if i % 3 else i / 7}
        for i in range(20)
    ]  # fmt: skip


def _table(path: Path) -> Path:
    shards.write_table_shard(path, _rows(), SCHEMA)
    return path


def _tensors(path: Path) -> Path:
    arrays = {
        "latents": np.arange(20 * 6, dtype=np.float16).reshape(20, 2, 3),
        "index": np.arange(20, dtype=np.int64),
    }
    shards.write_tensor_shard(path, [f"{i:03d}" for i in range(20)], arrays)
    return path


FORMATS = {
    "table": (_table, shards.read_table_shard, "00000.parquet"),
    "tensor": (_tensors, shards.read_tensor_shard, "00000.safetensors"),
}


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << (position % 8)
    path.write_bytes(data)


def test_table_round_trip(tmp_path: Path) -> None:
    assert shards.read_table_shard(_table(tmp_path / "00000.parquet")) == _rows()
    assert list(shards.read_table(tmp_path)) == _rows()


def test_tensor_round_trip(tmp_path: Path) -> None:
    keys, arrays = shards.read_tensor_shard(_tensors(tmp_path / "00000.safetensors"))
    assert keys[3] == "003"
    assert arrays["latents"].dtype == np.float16
    assert arrays["latents"][3].tolist() == [[18, 19, 20], [21, 22, 23]]


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_content_gives_equal_bytes(tmp_path: Path, kind: str) -> None:
    write, _, _ = FORMATS[kind]
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bit_is_found_and_named(tmp_path: Path, kind: str) -> None:
    """In the payload every flip is found; in headers a flip is found or changes nothing read."""
    write, read, name = FORMATS[kind]
    path = write(tmp_path / name)
    whole, expected = path.read_bytes(), repr(read(path))
    messages = []
    for position in range(0, len(whole), 37):
        path.write_bytes(whole)
        _flip(path, position)
        try:
            assert repr(read(path)) == expected, f"byte {position} changed what was read"
        except DamagedError as error:
            messages.append(str(error))
    assert all(name in message for message in messages)
    assert len(messages) > len(range(0, len(whole), 37)) / 2


def test_damaged_record_is_named(tmp_path: Path) -> None:
    path = _tensors(tmp_path / "00000.safetensors")
    _flip(path, path.stat().st_size - 1)
    with pytest.raises(DamagedError, match=r"00000.safetensors: record \d+ is damaged; rerun"):
        shards.read_tensor_shard(path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_truncated_shard_is_found(tmp_path: Path, kind: str, kept: float) -> None:
    write, read, name = FORMATS[kind]
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DamagedError, match=name):
        read(path)


def test_swapped_records_are_found(tmp_path: Path) -> None:
    """Record hashes cover the key, so rows of two keys can't change places."""
    rows = _rows()
    assert shards.hash_record(rows[0]) != shards.hash_record({**rows[1], "key": rows[0]["key"]})


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"no .parquet shards; rerun"):
        list(shards.read_table(tmp_path))


def test_arrays_need_a_row_per_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one row per key"):
        shards.write_tensor_shard(tmp_path / "x", ["a"], {"x": np.zeros((2, 3))})


@pytest.mark.parametrize("schema", [SCHEMA, CURATED_SCHEMA, REJECTED_SCHEMA])
def test_the_metadata_is_what_datasets_would_write(schema: pa.Schema, tmp_path: Path) -> None:
    """It is written by hand because importing `datasets` costs a stage a second at its start."""
    shards.write_table_shard(tmp_path / "a.parquet", [], schema)
    written = pq.read_schema(tmp_path / "a.parquet")
    plain = pa.schema([field for field in written if not pa.types.is_struct(field.type)])
    values = datasets.Features.from_arrow_schema(plain)
    features = datasets.Features(
        {name: values.get(name, datasets.Image()) for name in written.names}
    ).arrow_schema
    assert written.metadata[b"huggingface"] == features.metadata[b"huggingface"]
    assert written.remove_metadata() == features.remove_metadata()
