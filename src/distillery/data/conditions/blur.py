"""Blur (the ControlNets called tile): the image without its details."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.data.conditions.kind import ConditionKind

if TYPE_CHECKING:
    import numpy as np

FACTOR = 8


def blur_map(image: np.ndarray) -> np.ndarray:
    """The image at an eighth of its size (means of areas), enlarged again: uint8 (H, W, 3)."""
    import cv2

    height, width = image.shape[:2]
    small = (max(1, round(width / FACTOR)), max(1, round(height / FACTOR)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)


BLUR = ConditionKind(
    name="blur",
    words="Blur",
    form="blurred maps are images without details",
    draw=blur_map,
    group="blur",
)
