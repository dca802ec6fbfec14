"""Condition maps as networks take them, for the records of a batch.

In: the folder of all parts that `extract_conditions` wrote, or a folder of image files. Out: per
kind a float32 tensor in [0, 1], resized and cropped as `loader.load_image` does with the image.
Not here: making maps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.core.shards import read_table
from distillery.data.images import MAP_BACKGROUND, UndecodableError
from distillery.data.loader import load_image
from distillery.data.pictures import Spool

# Kinds whose values between two neighbours mean nothing: resizing may not interpolate. Here, not in
# `KINDS`, so that a further kind does not change the code of all that reads maps.
DISCRETE = frozenset({"segmentation", "mask"})


class ConditionMaps:
    """Maps of `kinds` by record key; `root` holds all parts, or is one.

    They stay encoded, outside of memory. Raises DistilleryError where a kind was not extracted.
    """

    def __init__(self, root: Path, kinds: Sequence[str], resolution_px: int) -> None:
        self.kinds, self._resolution_px = tuple(kinds), resolution_px
        self._maps = {kind: _read_kind(root, kind) for kind in kinds}

    def has(self, kind: str, key: str) -> bool:
        """Whether the record has a map of this kind."""
        return key in self._maps[kind]

    def is_complete(self, key: str) -> bool:
        """Whether the record has a map of every kind."""
        return all(key in known for known in self._maps.values())

    def images(self, kind: str, keys: Sequence[str]) -> np.ndarray:
        """uint8 [n, H, W, 3] of one kind; raises DistilleryError for a key without a map."""
        known = self._maps[kind]
        if lost := [key for key in keys if key not in known]:
            raise DistilleryError(
                f"conditions: no {kind} map of {lost[0]} ({len(lost)} are missing); "
                "rerun extract_conditions"
            )
        return np.stack([_load(known.get(key), kind, self._resolution_px) for key in keys])

    def batch(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """{kind: float32 [n, 3, H, W] in [0, 1]}; zeros for a record without such a map."""
        return {
            kind: as_hint(np.stack([self._or_none(kind, k) for k in keys])) for kind in self.kinds
        }

    def _or_none(self, kind: str, key: str) -> np.ndarray:
        if not self.has(kind, key):
            return np.zeros((self._resolution_px, self._resolution_px, 3), dtype=np.uint8)
        return _load(self._maps[kind].get(key), kind, self._resolution_px)

    def presence(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """{kind: bool [n]}: which records have a map."""
        return {k: torch.tensor([self.has(k, key) for key in keys]) for k in self.kinds}


class MapFiles:
    """Maps in image files, by kind and key, for a model that knows `kinds`."""

    def __init__(
        self, files: Mapping[str, Mapping[str, Path]], kinds: Sequence[str], resolution_px: int
    ) -> None:
        self.kinds, self._files = tuple(kinds), files
        self._resolution_px = resolution_px

    def images(self, kind: str, keys: Sequence[str]) -> np.ndarray:
        """uint8 [n, H, W, 3]; raises DistilleryError naming a file that is no image."""
        return np.stack([self._read(self._files[kind][key], kind) for key in keys])

    def _read(self, path: Path, kind: str) -> np.ndarray:
        try:
            return _load(path.read_bytes(), kind, self._resolution_px)
        except (UndecodableError, OSError) as error:
            raise DistilleryError(f"{path}: broken: {error}; replace it") from None


def _load(data: bytes, kind: str, resolution_px: int) -> np.ndarray:
    resampling = Image.Resampling.NEAREST if kind in DISCRETE else Image.Resampling.LANCZOS
    return load_image(data, resolution_px, resampling, MAP_BACKGROUND)


def as_hint(images: np.ndarray) -> Tensor:
    """uint8 [n, H, W, 3] as diffusers' pipelines pass condition maps: float32 [n, 3, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def extracted_kinds(root: Path) -> list[str]:
    """The kinds that have maps in the folder of all parts, sorted."""
    return sorted({path.name for path in root.glob("*/*") if path.is_dir()})


def _read_kind(root: Path, kind: str) -> Spool:
    folders = sorted(path for path in [root / kind, *root.glob(f"*/{kind}")] if path.is_dir())
    if not folders:
        raise DistilleryError(
            f"{root}: no {kind} maps; add {kind} to extract_conditions.kinds and run it"
        )
    spool = Spool()
    for row in (row for path in folders for row in read_table(path)):
        spool.put(row["key"], row["image"]["bytes"])
    return spool
