"""Curated records for training, caching and evaluation.

In: the curated parts and the selection. Out: `Record`s of the splits asked for, in a fixed order,
and their images at one resolution. It shuffles nothing and batches nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.core.shards import iter_table_shard, read_table_shard
from distillery.data.images import decode_rgb

SELECTION = "selection.parquet"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One selected image; `image_bytes` as it was found, `segmentation_bytes` a PNG or None."""

    key: str
    part: int
    split: str
    cluster: str
    caption: str
    image_bytes: bytes
    segmentation_bytes: bytes | None


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
    rows = read_selection(selection)
    for part in sorted({row["part"] for row in rows} if parts is None else set(parts)):
        wanted = {r["key"]: r for r in rows if r["part"] == part and r["split"] in splits}
        for shard in sorted((curated / str(part)).glob("[0-9]*.parquet")):
            for row in _rows_by_key(shard):
                if (choice := wanted.pop(row["key"], None)) is not None:
                    yield _record(row, choice)
        if wanted:
            raise DistilleryError(
                f"{curated / str(part)}: lacks {len(wanted)} keys of {selection}, first "
                f"{min(wanted)}; run deduplicate again"
            )


def _rows_by_key(shard: Path) -> Iterable[dict]:
    """Rows of a shard sorted by key: as they are stored, unless someone else made the raw shard."""
    keys = [row["key"] for row in iter_table_shard(shard, ["key"])]
    rows = iter_table_shard(shard)
    return rows if keys == sorted(keys) else sorted(rows, key=lambda row: row["key"])


def read_selection(selection: Path) -> list[dict]:
    """Rows (key, part, cluster, split) of the selection, sorted by key."""
    return read_table_shard(selection / SELECTION)


def _record(row: dict, choice: dict) -> Record:
    return Record(
        key=row["key"],
        part=choice["part"],
        split=choice["split"],
        cluster=choice["cluster"],
        caption=row["caption"],
        image_bytes=row["image"]["bytes"],
        segmentation_bytes=row["segmentation"],
    )


def load_image(
    data: bytes, resolution_px: int, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """uint8 (resolution_px, resolution_px, 3) RGB: shorter side resized, centre cropped.

    Resizing is Pillow's; its LANCZOS widens the filter when it shrinks and so does not alias. An
    image that already has the size is passed through unchanged.
    """
    image = Image.fromarray(decode_rgb(data))
    scale = resolution_px / min(image.size)
    width, height = (max(resolution_px, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), resampling)
    left, top = (width - resolution_px) // 2, (height - resolution_px) // 2
    return np.asarray(image.crop((left, top, left + resolution_px, top + resolution_px)))
