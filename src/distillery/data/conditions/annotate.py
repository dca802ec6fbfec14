"""Condition maps of the selected images, stored losslessly.

In: curated and selected rows. Out: per kind a parquet shard of (key, PNG), each map exactly as
large as its image is displayed. Built-in kinds are algorithms: Canny edges, a gradient sketch, and
for segmentation the source's exact labels where it has them, else a colour quantisation. Learned
annotators are in `conditions_learned`. Nothing is resized to a multiple of 64, nothing is JPEG.
"""

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.core.shards import image_type, read_table_shard, write_table_shard
from distillery.data.conditions.maps import canny_map, segmentation_map, sketch_map
from distillery.data.conditions.segmenter import quantise_colours
from distillery.data.images import decode_rgb
from distillery.data.scenes.palette import CLASS_NAMES

CONDITION_SCHEMA = pa.schema([("key", pa.string()), ("image", image_type())])
BUILTIN = "builtin"
# Level 6 would be 6% smaller on photos' sketches and take twice as long.
_PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 3]

Annotator = Callable[[np.ndarray], np.ndarray]


def build_annotators(
    kinds: Sequence[str],
    *,
    canny_low: int,
    canny_high: int,
    sketch: str,
    segmentation: str,
    device: str = "cpu",
) -> dict[str, Annotator]:
    """Per kind a function from uint8 (H, W, 3) RGB to uint8 (H, W) or (H, W, 3).

    `sketch` and `segmentation` are `builtin` or the folder of a learned annotator. Raises
    DistilleryError where such a folder is missing or not supported.
    """
    makers: dict[str, Callable[[], Annotator]] = {
        "canny": lambda: partial(canny_map, low=canny_low, high=canny_high),
        "sketch": lambda: sketch_map if sketch == BUILTIN else _learned("sketch", sketch, device),
        "segmentation": lambda: (
            quantise_colours
            if segmentation == BUILTIN
            else _learned("segmentation", segmentation, device)
        ),
    }
    return {kind: makers[kind]() for kind in kinds}


def _learned(kind: str, folder: str, device: str) -> Annotator:
    from distillery.data.conditions.learned import load_segmenter, load_sketcher

    load = {"sketch": load_sketcher, "segmentation": load_segmenter}[kind]
    return load(Path(folder), device)


def annotate_shard(
    shard: Path,
    targets: Mapping[str, Path],
    annotators: Mapping[str, Annotator],
    selected: Collection[str],
    *,
    exact_segmentation: bool = True,
) -> None:
    """Write the maps of one curated shard's selected rows, a file per kind in `targets`.

    With `exact_segmentation` a row's own labels go before the annotator's. Raises DistilleryError
    where a map is not as large as its image.
    """
    if not targets:
        return
    rows = [row for row in read_table_shard(shard) if row["key"] in selected]
    images = [decode_rgb(row["image"]["bytes"]) for row in rows]
    for kind, target in targets.items():
        maps = [
            _exact(row) if kind == "segmentation" and exact_segmentation and row["segmentation"]
            else annotators[kind](image)
            for row, image in zip(rows, images, strict=True)
        ]  # fmt: skip
        records = [
            _record(row["key"], kind, image, condition)
            for row, image, condition in zip(rows, images, maps, strict=True)
        ]
        write_table_shard(target, records, CONDITION_SCHEMA)


def _exact(row: Mapping[str, Any]) -> np.ndarray:
    """The source's labels in the colours of their classes; a colour image is taken as it is."""
    labels = Image.open(io.BytesIO(row["segmentation"]))
    if labels.mode != "L":
        return np.asarray(labels.convert("RGB"))
    try:
        return segmentation_map(np.asarray(labels))
    except IndexError:
        raise DistilleryError(
            f"segmentation of {row['key']} has class {np.max(labels)}, known are "
            f"{len(CLASS_NAMES)} classes; give colours (RGB) instead of ids"
        ) from None


def _record(key: str, kind: str, image: np.ndarray, condition: np.ndarray) -> dict[str, Any]:
    if condition.shape[:2] != image.shape[:2]:
        raise DistilleryError(
            f"{kind} of {key} is {condition.shape[1]} x {condition.shape[0]} px, its image "
            f"{image.shape[1]} x {image.shape[0]}; the annotator or the source's labels are wrong"
        )
    return {"key": key, "image": {"bytes": encode_png(condition), "path": f"{key}.png"}}


def encode_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG of uint8 (H, W) or (H, W, 3) RGB; three equal channels are stored as one."""
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered, _PNG_SETTINGS)[1].tobytes()
