"""Condition maps of ControlNets: pure functions from an image to an image of the same size.

In: an RGB `uint8` array of shape (H, W, 3), or (H, W) class ids. Out: `uint8` (H, W, 3), to be
stored losslessly. Nothing here is learned, loads weights, resizes or reads files; the sketch is
an algorithm and not the output of an annotator network.
"""

from __future__ import annotations

import cv2
import numpy as np

from distillery.data.scenes.palette import CLASS_COLOURS

CANNY_LOW, CANNY_HIGH = 100, 200
SKETCH_BLUR_PX = 1.0
SKETCH_GRADIENT_MAX = 256.0


def canny_map(image: np.ndarray, low: int = CANNY_LOW, high: int = CANNY_HIGH) -> np.ndarray:
    """White Canny edges on black (OpenCV thresholds 100 and 200, 3x3 Sobel, L1 norm)."""
    edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), low, high)
    return np.repeat(edges[:, :, None], 3, axis=2)


def sketch_map(image: np.ndarray) -> np.ndarray:
    """Soft pencil-like lines: the gradient magnitude of the smoothed luminance.

    The luminance is blurred by a Gaussian (sigma 1 px), the length of its 3x3 Sobel gradient is
    divided by a fixed 256 (never by the image's own maximum, so that a faint image stays
    faint).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (5, 5), SKETCH_BLUR_PX)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.minimum(np.sqrt(dx * dx + dy * dy) / SKETCH_GRADIENT_MAX, 1.0)
    return np.repeat(np.rint(strength * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def segmentation_map(class_ids: np.ndarray) -> np.ndarray:
    """Colours of class ids (H, W) by the palette `scene_palette.CLASS_COLOURS`.

    Raises `IndexError` for an id outside of the palette.
    """
    return np.asarray(CLASS_COLOURS, dtype=np.uint8)[class_ids]


def segmentation_ids(colour_map: np.ndarray) -> np.ndarray:
    """The class ids (H, W) of a colour map (H, W, 3): per pixel the nearest palette colour."""
    palette = np.asarray(CLASS_COLOURS, dtype=np.int32)
    distance = ((colour_map[:, :, None].astype(np.int32) - palette) ** 2).sum(axis=-1)
    return distance.argmin(axis=-1).astype(np.uint8)
