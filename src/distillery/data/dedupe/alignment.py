"""Fits one thumbnail to a window of another, or its levels to the other's.

In: thumbnails in YCrCb. Out: one of them, changed to look as much like the other as a crop, or one
brightness and contrast for all of it, can make it. Not here: whether they look alike enough.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from distillery.data.dedupe.windows import Window

_FRAME_SHARE = 20
_INNER = slice(3, -3)  # of 64 px, by that share
_ROUGH_STEPS_PX, _FINE_STEPS_PX = (0.75, 0.4), (0.4, 0.2, 0.1)
_FIT_SIGMA_PX = 1.5  # an image of less than 64 px has no detail at 64
_MAX_ROUGH_ERROR = 20.0**2
_CLIPPED_LEVELS = (6.0, 249.0)  # beyond, a brighter copy has lost what it showed
_MIN_GAIN, _MAX_GAIN = 0.72, 1.4
_MAX_SHIFT_LEVELS = 64.0
_MIN_CONTRAST_LEVELS = 8.0  # between places and between colours
_MIN_LUMA_CONTRAST_LEVELS = 4.0
_MIN_UNCLIPPED_SHARE = 0.05


def fit_window(whole: np.ndarray, part: np.ndarray, window: Window) -> np.ndarray | None:
    """The window of `whole`, near the one given, that is most like `part`, at its size.

    Both are uint8 (64, 64, 3). Rows and columns take turns, in ever finer steps: of the 25 ranges
    of rows around the last one, the one of least squared difference in luminance, then of columns;
    first at 32 px, where None is the answer if the difference is plain. The frame is that of
    `part`: a pixel there holds some of what lies beside, such as a border.
    """
    size = len(whole)
    source, target = (image[:, :, 0].astype(np.float32) for image in (whole, part))
    halves = [
        cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        for luma in (source, target)
    ]
    rough, error = _fit(*halves, np.array(window) * (size / 2), _ROUGH_STEPS_PX)
    if error > _MAX_ROUGH_ERROR:
        return None
    smooth = [cv2.GaussianBlur(luma, (0, 0), _FIT_SIGMA_PX) for luma in (source, target)]
    top, bottom, left, right = _fit(*smooth, rough * 2, _FINE_STEPS_PX)[0]
    row_map, column_map = _stretch(top, bottom, size), _stretch(left, right, size)
    channels = [row_map @ channel @ column_map.T for channel in whole.transpose(2, 0, 1)]
    cut = np.rint(np.stack(channels, axis=-1)).clip(0, 255).astype(np.uint8)
    fitted = part.copy()
    fitted[_INNER, _INNER] = cut[_INNER, _INNER]
    return fitted


def _fit(
    source: np.ndarray, target: np.ndarray, window: np.ndarray, steps_px: Sequence[float]
) -> tuple[np.ndarray, float]:
    """The window in pixels, and the mean squared difference of what it cuts to `target`."""
    size = len(source)
    rows, columns = tuple(window[:2].tolist()), tuple(window[2:].tolist())
    error = np.inf
    for step in steps_px:
        rows, _ = _best_range(source @ _stretch(*columns, size).T, target, rows, step)
        turned = (_stretch(*rows, size) @ source).T
        columns, error = _best_range(turned, target.T, columns, step)
    return np.array([*rows, *columns]), error


def _best_range(
    source: np.ndarray, target: np.ndarray, around: tuple[float, float], step: float
) -> tuple[tuple[float, float], float]:
    """The range of rows, and its error."""
    size = len(source)
    inner = slice(size // _FRAME_SHARE, -(size // _FRAME_SHARE))
    moves = step * np.arange(-2, 3)
    ranges = [
        (max(around[0] + low, 0.0), min(around[1] + high, float(size)))
        for low in moves.tolist()
        for high in moves.tolist()
    ]
    maps = np.stack([_stretch(*ends, size)[inner] for ends in ranges])
    errors = np.square(maps @ source[:, inner] - target[inner, inner]).mean(axis=(1, 2))
    best = int(errors.argmin())
    return ranges[best], float(errors[best])


@functools.lru_cache(maxsize=2**14)
def _stretch(low: float, high: float, size: int) -> np.ndarray:
    """float32 (size, size): cuts [low, high] out of `size` pixels and stretches it linearly."""
    centres = (np.arange(size) + 0.5) * (high - low) / size - 0.5 + low
    distance = np.abs(centres.clip(0, size - 1)[:, None] - np.arange(size))
    return np.maximum(1 - distance, 0).astype(np.float32)


def fit_levels(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """`first`, uint8 (S, S, 3), with the contrast and brightness of `second`, clipped like it.

    Fitted over the values of red, green and blue that neither image has clipped: an edit clips each
    by itself, so that what is dark or bright changes its colour. None where either has too little
    contrast, or it takes more than a copy's 20% and some tolerance.
    """
    rgb, other = (
        cv2.cvtColor(image, cv2.COLOR_YCrCb2RGB).astype(np.float32) for image in (first, second)
    )
    low, high = _CLIPPED_LEVELS
    whole = np.logical_and.reduce([(values > low) & (values < high) for values in (rgb, other)])
    if whole.mean() < _MIN_UNCLIPPED_SHARE or first[:, :, 0].std() < _MIN_LUMA_CONTRAST_LEVELS:
        return None
    x, y = rgb[whole], other[whole]
    if min(x.std(), y.std()) < _MIN_CONTRAST_LEVELS:
        return None
    gain = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())
    shift = float(y.mean() - gain * x.mean())
    if not _MIN_GAIN <= gain <= _MAX_GAIN or abs(y.mean() - x.mean()) > _MAX_SHIFT_LEVELS:
        return None
    fitted = np.rint(rgb * gain + shift).clip(0, 255).astype(np.uint8)
    return cv2.cvtColor(fitted, cv2.COLOR_RGB2YCrCb)
