"""Curated records for training, caching and evaluation.

In: the curated parts and the selection. Out: `Record`s of the splits asked for, in a fixed order,
and their images at one resolution. It shuffles nothing and batches nothing.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.core.shards import iter_table_shard
from distillery.data.images import decode_rgb

SELECTION = "selection.parquet"
SPLITS = ("train", "val", "test")
_BLOCK_ROWS = 2**12


@dataclass(frozen=True)
class Record:
    """One selected image; `image_bytes` as it was found."""

    key: str
    part: int
    split: str
    cluster: str
    caption: str
    image_bytes: bytes


@dataclass(frozen=True)
class Selection:
    """What was selected, sorted by key: keys in UTF-8 `S` (N,), parts int64 (N,), splits int8 (N,)
    as places in `SPLITS`, and names of clusters."""

    keys: np.ndarray
    parts: np.ndarray
    splits: np.ndarray
    clusters: pa.Array

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        return self.place(key) is not None

    def place(self, key: str) -> int | None:
        """The number of a key, or None."""
        name = key.encode()
        if len(name) > self.keys.itemsize:  # NumPy would copy all keys into longer ones
            return None
        found = int(np.searchsorted(self.keys, name))
        return found if found < len(self) and self.keys[found] == name else None

    def of(self, part: int, splits: Collection[str] = SPLITS) -> "Selection":
        """What is of one part, and of some splits."""
        codes = [SPLITS.index(split) for split in splits]
        return self._take(np.flatnonzero((self.parts == part) & np.isin(self.splits, codes)))

    def without(self, columns: Iterable[pa.ChunkedArray]) -> set[str]:
        """Those of the keys that stand in none of some columns."""
        lost = np.ones(len(self), dtype=bool)
        for key in (key for column in columns for key in column.to_pylist()):
            if (place := self.place(key)) is not None:
                lost[place] = False
        return {key.decode() for key in self.keys[lost].tolist()}

    def ordered(self) -> "Selection":
        """Sorted by key."""
        return self._take(np.argsort(self.keys, kind="stable"))

    def _take(self, places: np.ndarray) -> "Selection":
        clusters = self.clusters.take(pa.array(places, pa.int64()))
        return Selection(self.keys[places], self.parts[places], self.splits[places], clusters)


def iter_records(
    curated: Path,
    selection: Path,
    *,
    parts: Sequence[int] | None = None,
    splits: Collection[str] = SPLITS,
) -> Iterator[Record]:
    """Selected records of the splits, part by part, sorted by key; a row group in memory at a time.

    `curated` is the folder of all parts. Raises DistilleryError for an unknown split, for damage,
    and where the selection names a key that is not there (made from other data).
    """
    if unknown := set(splits) - set(SPLITS):
        raise DistilleryError(f"split {sorted(unknown)[0]!r}: not one of {', '.join(SPLITS)}")
    chosen = read_selection(selection)
    for part in sorted(set(np.unique(chosen.parts).tolist() if parts is None else parts)):
        wanted = chosen.of(part, splits)
        is_lost = np.ones(len(wanted), dtype=bool)
        for shard in sorted((curated / str(part)).glob("[0-9]*.parquet")):
            for row in _rows_by_key(shard):
                place = wanted.place(row["key"])
                if place is not None and is_lost[place]:
                    is_lost[place] = False
                    yield _record(row, part, wanted, place)
        if is_lost.any():
            raise DistilleryError(
                f"{curated / str(part)}: lacks {is_lost.sum()} keys of {selection}, first "
                f"{wanted.keys[is_lost][0].decode()}; run deduplicate again"
            )


def _rows_by_key(shard: Path) -> Iterable[dict]:
    """Rows of a shard sorted by key: as they are stored, unless someone else made the raw shard."""
    keys = [row["key"] for row in iter_table_shard(shard, ["key"])]
    rows = iter_table_shard(shard)
    return rows if keys == sorted(keys) else sorted(rows, key=lambda row: row["key"])


def read_selection(selection: Path) -> Selection:
    """The selection, checked; 100 bytes a row."""
    rows = iter_table_shard(selection / SELECTION)
    keys, columns = [np.empty(0, "S1")], []
    while block := list(itertools.islice(rows, _BLOCK_ROWS)):
        keys.append(np.array([row["key"].encode() for row in block]))
        splits = [SPLITS.index(row["split"]) for row in block]
        clusters = pa.array([row["cluster"] for row in block], pa.string())
        columns.append(([row["part"] for row in block], splits, clusters))
    parts, splits, clusters = zip(*columns, strict=True) if columns else ((), (), ())
    return Selection(
        keys=np.concatenate(keys),
        parts=np.array(list(itertools.chain(*parts)), np.int64),
        splits=np.array(list(itertools.chain(*splits)), np.int8),
        clusters=pa.chunked_array(clusters, pa.string()).combine_chunks(),
    ).ordered()


def _record(row: dict, part: int, wanted: Selection, place: int) -> Record:
    return Record(
        key=row["key"],
        part=part,
        split=SPLITS[wanted.splits[place]],
        cluster=wanted.clusters[place].as_py(),
        caption=row["caption"],
        image_bytes=row["image"]["bytes"],
    )


def load_image(
    data: bytes,
    resolution_px: int,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
    background: str = "white",
) -> np.ndarray:
    """uint8 (resolution_px, resolution_px, 3) RGB: shorter side resized, centre cropped.

    Resizing is Pillow's; its LANCZOS widens the filter when it shrinks and so does not alias. An
    image that already has the size is passed through unchanged.
    """
    image = Image.fromarray(decode_rgb(data, background))
    scale = resolution_px / min(image.size)
    width, height = (max(resolution_px, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), resampling)
    left, top = (width - resolution_px) // 2, (height - resolution_px) // 2
    return np.asarray(image.crop((left, top, left + resolution_px, top + resolution_px)))
