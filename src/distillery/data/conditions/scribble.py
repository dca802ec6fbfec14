"""Scribbles: a few thick white strokes on black, as if by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.data.conditions.kind import ConditionKind
from distillery.data.conditions.softedge import softedge_map

if TYPE_CHECKING:
    import numpy as np

THRESHOLD = 96  # of a soft edge's 255: what a hand would draw
STROKE_SHARE = 1 / 128  # of the shorter side, 4 px at 512


def scribble_map(image: np.ndarray) -> np.ndarray:
    """White strokes on black, uint8 (H, W, 3): the ridges of the soft edges, drawn thick.

    A ridge is a strong soft edge that no neighbour within a stroke's width exceeds, in one of
    four directions (the non-maximum suppression of ControlNet's scribbles).
    """
    import cv2
    import numpy as np

    soft = cv2.GaussianBlur(softedge_map(image)[:, :, 0], (0, 0), 1.0)
    directions = [np.eye(3), np.eye(3)[::-1], np.outer([0, 1, 0], np.ones(3)),
                  np.outer(np.ones(3), [0, 1, 0])]  # fmt: skip
    is_peak = np.zeros(soft.shape, dtype=bool)
    for kernel in directions:
        is_peak |= cv2.dilate(soft, kernel.astype(np.uint8)) == soft
    ridge = (is_peak & (soft >= THRESHOLD)).astype(np.uint8) * 255
    width_px = max(2, round(min(soft.shape) * STROKE_SHARE))
    strokes = cv2.dilate(ridge, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px,) * 2))
    return np.repeat(strokes[:, :, None], 3, axis=2)


SCRIBBLE = ConditionKind(
    name="scribble",
    words="Scribbles",
    form="scribbles are white strokes on black",
    draw=scribble_map,
    group="scribble",
)
