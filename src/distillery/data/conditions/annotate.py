"""Condition maps of the selected images, stored losslessly.

In: curated and selected rows. Out: per kind a parquet shard of (key, PNG), each map exactly as
large as its image is displayed. Nothing is resized to a multiple of 64, nothing is JPEG. Not here:
what a kind's map is (a file per kind beside this one).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from distillery.core.errors import DistilleryError
from distillery.core.shards import image_type, read_table_shard, shard_name, write_table_shard
from distillery.data.conditions import KINDS
from distillery.data.images import decode_rgb

CONDITION_SCHEMA = pa.schema([("key", pa.string()), ("image", image_type())])
# Level 6 would be 6% smaller on photos' sketches and take twice as long.
_PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 3]

Annotator = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]


def build_annotators(
    kinds: Sequence[str], settings: Mapping[str, Any], device: str = "cpu"
) -> dict[str, Annotator]:
    """Per kind a function from an image uint8 (H, W, 3) RGB and its curated row to the map.

    `settings` are those of `extract_conditions`. Raises DistilleryError where the folder of a
    learned annotator is missing or not supported.
    """
    return {kind: _annotator(kind, settings, device) for kind in kinds}


def _annotator(name: str, settings: Mapping[str, Any], device: str) -> Annotator:
    kind = KINDS[name]
    draw, takes_exact = kind.open(settings, device), kind.takes_exact(settings)

    def annotate(image: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
        exact = kind.exact(row) if takes_exact else None
        return draw(image) if exact is None else exact

    return annotate


def annotate_shard(
    shard: Path,
    targets: Mapping[str, Path],
    annotators: Mapping[str, Annotator],
    selected: Collection[str],
) -> None:
    """Write the maps of one curated shard's selected rows, a file per kind in `targets`.

    Raises DistilleryError where a map is not as large as its image.
    """
    if not targets:
        return
    rows = [row for row in read_table_shard(shard) if row["key"] in selected]
    images = [decode_rgb(row["image"]["bytes"]) for row in rows]
    for kind, target in targets.items():
        records = [
            _record(row["key"], kind, image, annotators[kind](image, row))
            for row, image in zip(rows, images, strict=True)
        ]
        write_table_shard(target, records, CONDITION_SCHEMA)


def write_no_maps(conditions: Path, kinds: Iterable[str]) -> None:
    """The folders of a part without images: one shard without rows for each kind."""
    for kind in kinds:
        write_table_shard(conditions / kind / shard_name(0, "parquet"), [], CONDITION_SCHEMA)


def _record(key: str, kind: str, image: np.ndarray, condition: np.ndarray) -> dict[str, Any]:
    if condition.shape[:2] != image.shape[:2]:
        raise DistilleryError(
            f"{kind} of {key} is {condition.shape[1]} x {condition.shape[0]} px, its image "
            f"{image.shape[1]} x {image.shape[0]}; the annotator or the source's labels are wrong"
        )
    num_channels = KINDS[kind].num_channels
    if condition.dtype != np.uint8 or condition.shape[2:] not in ((), (num_channels,)):
        raise DistilleryError(
            f"{kind} of {key}: {condition.dtype} {condition.shape}; an annotator gives uint8 "
            f"(H, W) or (H, W, {num_channels})"
        )
    return {"key": key, "image": {"bytes": encode_png(condition), "path": f"{key}.png"}}


def encode_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG of uint8 (H, W) or (H, W, 3) RGB; three equal channels are stored as one."""
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered, _PNG_SETTINGS)[1].tobytes()
