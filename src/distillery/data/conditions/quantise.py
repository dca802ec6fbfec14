"""Built-in segmentation: the image in a few fixed colours.

In: an RGB image. Out: the same size in colours of one fixed palette. It knows no objects and no
classes; it is a colour layout, for images without labels and without a learned segmenter. Every
image uses the same palette, so a colour means the same everywhere, and no clustering runs, so the
result depends on nothing but the pixels.
"""

import functools

import cv2
import numpy as np

from distillery.data.conditions.bands import draw_in_bands

# Five levels each of red, green and blue in steps that look alike (sRGB), 125 colours.
_LEVELS = np.array([0, 64, 128, 191, 255], dtype=np.uint8)
_BLUR_SHARE = 1 / 64
_TABLE_BITS = 5


def quantise_colours(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) in palette colours: median blur of 1/64 side, then the nearest in CIE Lab."""
    blur_px = 2 * round(min(image.shape[:2]) * _BLUR_SHARE) + 1
    smooth = cv2.medianBlur(np.ascontiguousarray(image), blur_px) if blur_px > 1 else image
    return draw_in_bands(_nearest, smooth, 0)


def _nearest(image: np.ndarray) -> np.ndarray:
    """The palette colour of each pixel's cell."""
    red, green, blue = cv2.split((image >> (8 - _TABLE_BITS)).astype(np.uint16))
    cell = (red << 2 * _TABLE_BITS) | (green << _TABLE_BITS) | blue
    return _nearest_table().take(cell, axis=0)


@functools.cache
def _nearest_table() -> np.ndarray:
    """uint8 (32768, 3): the palette colour nearest to the middle of each cell of RGB."""
    middles = (np.arange(2**_TABLE_BITS) * 8 + 4).astype(np.uint8)
    cells = np.stack(np.meshgrid(middles, middles, middles, indexing="ij"), axis=-1)
    cells = cells.reshape(-1, 3)
    palette = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1)
    palette = palette.reshape(-1, 3)
    distances = ((_lab(cells)[:, None] - _lab(palette)) ** 2).sum(axis=-1)
    return palette[distances.argmin(axis=1)]


def _lab(colours: np.ndarray) -> np.ndarray:
    """CIE Lab, float32 (N, 3), of uint8 sRGB (N, 3)."""
    return cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
