"""Sketches: soft lines, from the gradient of the luminance or by a learned edge detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.bands import draw_in_bands
from distillery.data.conditions.kind import BUILTIN, ConditionKind

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.conditions.kind import Draw

BLUR_PX = 1.0
GRADIENT_MAX = 256.0
_REACH_PX = 3  # of the Gaussian's 5x5 window and Sobel's


def sketch_map(image: np.ndarray) -> np.ndarray:
    """Soft pencil-like lines: the gradient magnitude of the smoothed luminance.

    The luminance is blurred by a Gaussian (sigma 1 px), the length of its 3x3 Sobel gradient is
    divided by a fixed 256 (never by the image's own maximum, so that a faint image stays
    faint).
    """
    return draw_in_bands(_draw, image, _REACH_PX)


def _draw(image: np.ndarray) -> np.ndarray:
    import cv2
    import numpy as np

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (5, 5), BLUR_PX)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.minimum(np.sqrt(dx * dx + dy * dy) / GRADIENT_MAX, 1.0)
    return np.repeat(np.rint(strength * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    if settings["sketch"] == BUILTIN:
        return sketch_map
    from distillery.data.conditions.learned import load_sketcher

    return load_sketcher(Path(settings["sketch"]), device)


SKETCH = ConditionKind(
    name="sketch",
    words="Sketch",
    form="sketches are light lines on black",
    draw=sketch_map,
    group="sketch",
    open_drawer=_open,
)
