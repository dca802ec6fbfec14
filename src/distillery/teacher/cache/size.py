"""How many bytes a teacher cache takes, before anything is computed or written.

In: the teacher's folder (only its small JSON files are read) and counts. Out: bytes, or a refusal.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.core.sizes import in_bytes


@dataclass(frozen=True)
class CachePlan:
    """Settings of a cache; all but `shard_size` and `batch_size` are recorded in it."""

    dtype: Literal["float32", "float16"]
    num_slots: int
    seed: int
    resolution_px: int
    shard_size: int
    batch_size: int


HEADER_BYTES = 100  # key and sha256 of a record


@dataclass(frozen=True)
class CacheShapes:
    """Shapes of one latent [C, h, w] and one text embedding [length, width]."""

    latent: tuple[int, int, int]
    text: tuple[int, int]


def cache_shapes(teacher: Path, resolution_px: int) -> CacheShapes:
    """Shapes for images of this size, from the teacher's configs."""
    vae = read_json(teacher / "vae" / "config.json")
    text = read_json(teacher / "text_encoder" / "config.json")
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    if resolution_px % factor:
        raise DistilleryError(
            f"data.resolution_px: {resolution_px} is not a multiple of {factor}, "
            "which this teacher's VAE needs"
        )
    side = resolution_px // factor
    return CacheShapes(
        latent=(vae["latent_channels"], side, side),
        text=(text["max_position_embeddings"], text["hidden_size"]),
    )


def base_bytes(shapes: CacheShapes, dtype: str, *, num_records: int, num_texts: int) -> int:
    """Bytes of the view `base`: a latent per record, an embedding per distinct caption."""
    item = np.dtype(dtype).itemsize
    record = int(np.prod(shapes.latent)) * item + 9 + HEADER_BYTES
    return num_records * record + num_texts * (int(np.prod(shapes.text)) * item + HEADER_BYTES)


def view_bytes(shapes: CacheShapes, dtype: str, *, num_records: int, num_slots: int) -> int:
    """Bytes of one further view: `num_slots` outputs of a latent's shape per record."""
    output = int(np.prod(shapes.latent)) * np.dtype(dtype).itemsize
    return num_records * (num_slots * (output + 8) + HEADER_BYTES)


@dataclass(frozen=True)
class CacheExtent:
    """The whole cache: its views beside `base`, its parts, and how many bytes it may take."""

    num_views: int
    num_parts: int
    budget_bytes: int


def require_room(
    captions: Sequence[str],
    plan: CachePlan,
    teacher: Path,
    folder: Path,
    view: str,
    extent: CacheExtent,
) -> str:
    """Say what this view of this part needs, and the whole cache if its parts are alike.

    `captions` has one entry per record. Raises DistilleryError where the whole is over the budget,
    or this is over the free space of the disk that `folder` is on.
    """
    shapes = cache_shapes(teacher, plan.resolution_px)
    num_records, num_texts = len(captions), len({"", *captions})
    base = base_bytes(shapes, plan.dtype, num_records=num_records, num_texts=num_texts)
    one_view = view_bytes(shapes, plan.dtype, num_records=num_records, num_slots=plan.num_slots)
    needed = base if view == "base" else one_view
    total = (base + extent.num_views * one_view) * extent.num_parts
    existing = next(p for p in (folder, *folder.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(existing).free
    estimate = (
        f"{f'about {in_bytes(needed)}' if needed else 'nothing'} to write, {in_bytes(total)} for "
        f"the whole cache (budget {in_bytes(extent.budget_bytes)}, free {in_bytes(free)})"
    )
    if total > extent.budget_bytes:
        raise DistilleryError(
            f"cache_teacher: {estimate}: over the budget; raise cache_teacher.budget_bytes, lower "
            "num_slots or the number of images, or set dtype fp16"
        )
    if needed > free:
        raise DistilleryError(
            f"cache_teacher: {estimate}: over the free space; free some or move the cache"
        )
    return estimate
