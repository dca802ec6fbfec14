"""Columns of curated rows: what of each decides about duplicates.

In: the curated shards. Out: `Rows`, best copies first, in some 150 bytes a row, since objects of
Python take a kilobyte. Not here: images and sketches (`views`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core.shards import read_columns

NAME_BYTES = 32
_SLICE = 2**16
_COLUMNS = ("key", "url", "sha256", "phash", "num_bytes", "width", "height")


@dataclass(frozen=True)
class Rows:
    """N curated rows; `shards` and `numbers` say where each one lies among `curated_shards`.

    `urls` has equal numbers for equal URLs, -1 for none; `digests` is the sha256 of the image's
    bytes, uint8 (N, 32). The other columns but `keys` are int64 or uint64 (N,).
    """

    keys: pa.Array
    parts: np.ndarray
    shards: np.ndarray
    numbers: np.ndarray
    urls: np.ndarray
    digests: np.ndarray
    phashes: np.ndarray
    widths_px: np.ndarray
    heights_px: np.ndarray
    nums_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.parts)

    def take(self, places: np.ndarray) -> "Rows":
        """These rows, in this order."""
        columns = {f.name: getattr(self, f.name)[places] for f in fields(self) if f.name != "keys"}
        return Rows(keys=self.keys.take(pa.array(places)), **columns)

    @property
    def names(self) -> np.ndarray:
        """`S32` (N,): the sha256, to be compared."""
        return np.ascontiguousarray(self.digests).view(f"S{NAME_BYTES}").reshape(-1)

    def sha256(self, place: int) -> str:
        """Of one row's bytes, in hex."""
        return self.digests[place].tobytes().hex()

    @property
    def shorter_sides_px(self) -> np.ndarray:
        """int64 (N,)."""
        return np.minimum(self.widths_px, self.heights_px)

    def ranked(self) -> "Rows":
        """Best copies first: most pixels, least compressed, then the hash of the bytes, the key."""
        by_key = np.empty(len(self), np.int64)
        by_key[np.asarray(pc.array_sort_indices(self.keys))] = np.arange(len(self))
        words = np.ascontiguousarray(self.digests).view(">u8").astype(np.uint64)
        pixels = self.widths_px * self.heights_px
        order = (by_key, *words.T[::-1], -self.nums_bytes, -pixels)
        return self.take(np.lexsort(order))


def curated_shards(folders: Mapping[int, Path]) -> Iterator[tuple[int, Path]]:
    """(part, shard) of all parts ({part: folder}), in the order that `Rows.shards` counts."""
    for part, folder in folders.items():
        for shard in sorted(folder.glob("[0-9]*.parquet")):
            yield part, shard


def read_rows(folders: Mapping[int, Path]) -> Rows:
    """Rows of all parts ({part: folder}), best copies first."""
    tables = [
        _with_places(read_columns(path, _COLUMNS), part, shard)
        for shard, (part, path) in enumerate(curated_shards(folders))
    ]
    return make_rows(pa.concat_tables(tables)).ranked()


def _with_places(table: pa.Table, part: int, shard: int) -> pa.Table:
    places = {"part": part, "shard": shard}
    for name, value in places.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.int64()), len(table)))
    return table.append_column("number", pa.array(np.arange(len(table))))


def make_rows(table: pa.Table) -> Rows:
    """Rows of a table with the curated columns, `part`, `shard` and `number`; in its order."""
    ints = {
        field: table[name].to_numpy()
        for field, name in (
            ("parts", "part"), ("shards", "shard"), ("numbers", "number"), ("widths_px", "width"),
            ("heights_px", "height"), ("nums_bytes", "num_bytes"),
        )
    }  # fmt: skip
    return Rows(
        keys=table["key"].combine_chunks(),
        urls=_numbered(table["url"].combine_chunks()),
        digests=_of_chunks(table["sha256"], _digests),
        phashes=_of_chunks(table["phash"], _hashes),
        **ints,
    )


def _of_chunks(column: pa.ChunkedArray, convert: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """A column of hex, a chunk in memory as text at a time."""
    slices = (c[i : i + _SLICE] for c in column.chunks for i in range(0, len(c), _SLICE))
    return np.concatenate([convert([]), *(convert(part.to_pylist()) for part in slices)])


def _digests(texts: list[str]) -> np.ndarray:
    joined = bytes.fromhex("".join(texts))
    return np.frombuffer(joined, np.uint8).reshape(-1, NAME_BYTES)


def _hashes(texts: list[str]) -> np.ndarray:
    return np.array([int(text, 16) for text in texts], dtype=np.uint64)


def _numbered(texts: pa.Array) -> np.ndarray:
    """int64 (N,): equal numbers for equal texts, -1 for none."""
    there = pc.if_else(pc.equal(texts, ""), None, texts).cast(pa.string())
    return there.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
