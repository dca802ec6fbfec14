"""Generated images on disk: which prompts, where, and in what form.

In: records of the test split; folders that `generate` wrote. Out: prompts in a fixed order; images.
Torch is not imported, so that the report needs none. Not here: how images come about (`sampling`).
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.core.shards import image_type, read_table

T = TypeVar("T")
AND = "+"
SCHEMA = pa.schema(
    [("key", pa.string()), ("image", image_type()), ("caption", pa.string()),
     ("noise_seed", pa.int64()), ("condition", pa.string())]
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """A record's key and caption; the key also picks the noise.

    `condition` is the kind of the map that controls the image, "" for none; several kinds, with
    `AND` between them, control it together.
    """

    key: str
    caption: str
    condition: str = ""


def hash_order(key: str) -> str:
    """Sort key that is random over records and the same everywhere."""
    return hashlib.sha256(key.encode()).hexdigest()


def pick_prompts(prompts: Iterable[Prompt], num_samples: int) -> list[Prompt]:
    """The first `num_samples` by a hash of the key, or all: fewer are always a part of more."""
    ordered = sorted(prompts, key=lambda p: hash_order(p.key))
    if not ordered:
        raise DistilleryError("no records in the test split; raise deduplicate.split.test")
    return ordered[:num_samples]


def with_conditions(
    prompts: Sequence[Prompt],
    kinds: Sequence[str],
    has: Callable[[str, str], bool] = lambda kind, key: True,
) -> list[Prompt]:
    """The prompts taking turns with the kinds of condition maps; unchanged where there are none.

    `has(kind, key)` says whether a record has a map; one whose turn it has not takes the next kind
    that it has, and is left out where it has none.
    """
    if not kinds:
        return list(prompts)
    turns = (
        (p, [*kinds[i % len(kinds) :], *kinds[: i % len(kinds)]]) for i, p in enumerate(prompts)
    )
    own = ((p, next((kind for kind in order if has(kind, p.key)), None)) for p, order in turns)
    return [replace(p, condition=kind) for p, kind in own if kind is not None]


def sample_folders(samples: Path) -> dict[int, Path]:
    """{training seed: folder} of a samples artefact, in order."""
    folders = {int(p.name.removeprefix("seed-")): p for p in samples.glob("seed-*") if p.is_dir()}
    if not folders:
        raise DistilleryError(f"{samples}: no seed-<n> folders; run generate first")
    return dict(sorted(folders.items()))


def read_samples(folder: Path, num_samples: int | None = None) -> list[dict[str, Any]]:
    """Rows key, caption, noise_seed, condition (a kind or "") and `image` as PNG bytes, checked."""
    return list(iter_samples(folder, num_samples))


def iter_samples(folder: Path, num_samples: int | None = None) -> Iterator[dict[str, Any]]:
    """The same, a shard in memory at a time."""
    for row in islice(read_table(folder), num_samples):
        yield {**row, "image": row["image"]["bytes"]}


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of uint8 RGB [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """uint8 RGB [H, W, 3] of PNG bytes."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))
