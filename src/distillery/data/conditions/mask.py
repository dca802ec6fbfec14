"""Masks: white where a picture is to be painted anew, black where it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.kind import ConditionKind

if TYPE_CHECKING:
    import numpy as np

SIDE_SHARES = (0.25, 0.75)


def region_of(name: str, height: int, width: int) -> np.ndarray:
    """A white box on black, uint8 (H, W, 3), that follows from a name alone.

    Each side is 1/4 to 3/4 of the image's, uniformly, and so is the place where it fits.
    """
    import numpy as np

    digest = hashlib.sha256(name.encode()).digest()
    parts = (int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in range(0, 16, 4))
    mask, box = np.zeros((height, width, 3), dtype=np.uint8), []
    for side in (height, width):
        low, high = SIDE_SHARES
        length = max(1, round(side * (low + (high - low) * next(parts))))
        start = int(next(parts) * (side - length + 1))
        box.append(slice(start, start + length))
    mask[tuple(box)] = 255
    return mask


def mask_map(image: np.ndarray) -> np.ndarray:
    """The region of an image that has no key: it follows from the pixels."""
    return region_of(hashlib.sha256(image.tobytes()).hexdigest(), *image.shape[:2])


def _exact(row: Mapping[str, Any]) -> np.ndarray:
    return region_of(row["key"], row["height"], row["width"])


MASK = ConditionKind(
    name="mask",
    words="Mask",
    form="masks are white where the image is painted anew",
    draw=mask_map,
    exact=_exact,
)
