"""Soft edges: edges of several scales in grey, by gradients or by a learned edge detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.bands import draw_in_bands
from distillery.data.conditions.kind import BUILTIN, ConditionKind

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.conditions.kind import Draw

SCALES_PX = (1.0, 2.0, 4.0)
GRADIENT_MAX = 128.0
_REACH_PX = 17  # OpenCV cuts a Gaussian at 4 sigma; Sobel's window


def softedge_map(image: np.ndarray) -> np.ndarray:
    """White where the luminance changes, on black, uint8 (H, W, 3).

    The mean over Gaussian scales of 1, 2 and 4 px of the gradient's length times the scale (the
    normalised derivative of Lindeberg 1998), divided by a fixed 128: never by the image's own
    maximum. A coarse edge is wide and grey, a fine one thin, as HED's mean of five scales has it.
    """
    return draw_in_bands(_draw, image, _REACH_PX)


def _draw(image: np.ndarray) -> np.ndarray:
    import cv2
    import numpy as np

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    total = np.zeros_like(grey)
    for sigma in SCALES_PX:
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
        dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
        dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
        total += np.minimum(sigma * np.sqrt(dx * dx + dy * dy) / GRADIENT_MAX, 1.0)
    strength = np.minimum(total * (2 * np.sqrt(2 * np.pi) / len(SCALES_PX)), 1.0)
    return np.repeat(np.rint(strength * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    if settings["softedge"] == BUILTIN:
        return softedge_map
    from distillery.data.conditions.learned import load_sketcher

    return load_sketcher(Path(settings["softedge"]), device)


SOFTEDGE = ConditionKind(
    name="softedge",
    words="Soft edges",
    form="soft edges are light on black",
    draw=softedge_map,
    group="softedge",
    open_drawer=_open,
)
