"""Canny edges: white on black, by OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.kind import ConditionKind

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.conditions.kind import Draw

LOW, HIGH = 100, 200


def canny_map(image: np.ndarray, low: int = LOW, high: int = HIGH) -> np.ndarray:
    """White Canny edges on black (OpenCV thresholds 100 and 200, 3x3 Sobel, L1 norm)."""
    import cv2
    import numpy as np

    edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), low, high)
    return np.repeat(edges[:, :, None], 3, axis=2)


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    return partial(canny_map, low=settings["canny_low"], high=settings["canny_high"])


CANNY = ConditionKind(
    name="canny",
    words="Canny edges",
    form="edge maps are white on black",
    draw=canny_map,
    group="edges",
    open_drawer=_open,
)
