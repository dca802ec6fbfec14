"""Decides whether two images are the same picture, up to one edit.

In: thumbnails. Out: yes or no. Two pictures agree when, in YCrCb, because JPEG keeps luminance well
and halves the resolution of colour:

1. on an 8 x 8 grid of means, luminance differs by at most 7 levels and colour by at most 20
   everywhere, and on a 16 x 16 grid luminance by at most 15 (so another colour, a shape elsewhere
   or another texture is another picture);
2. the mean SSIM of luminance is at least `min_ssim` (Wang et al., "Image Quality Assessment: From
   Error Visibility to Structural Similarity", 2004), at 64 px, or at 32 px where one image is
   smaller than 128 px, since enlarging makes no detail.

They are the same picture when they agree as they are (resized, recompressed); or without colour,
where one has none; or after one contrast and brightness for the whole of one; or beside a small
overlay that only lightens or only darkens; or after cutting a window out of one (cropped, or put
into a border), then within three quarters of the levels. One of these, not several together:
different pictures of one kind are alike up to a crop and a change of light.

Measured on 3,000 drawn scenes: JPEG of quality 30 stays within 6.1 levels of luminance and 13.1 of
colour on the coarse grid and 11.8 on the fine one; no two different scenes come below 8 by test 1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from distillery.data.dedupe.alignment import fit_levels, fit_window
from distillery.data.dedupe.thumbnails import SIDE_PX
from distillery.data.dedupe.windows import Window
from distillery.data.ssim import ssim_map

_SMALL_SIDE_PX = 32
_GRID = 8
_FINE_GRID = 16
MAX_LUMINANCE_LEVELS = 7.0
MAX_FINE_LUMINANCE_LEVELS = 15.0
MAX_COLOUR_LEVELS = 20.0
# Before anything finer: luminance on the coarse grid as a unit vector, colour on one of 4 x 4.
_MAX_COARSE_DISTANCE = 0.3
_MAX_COARSE_COLOUR_LEVELS = 32.0
_MIN_COARSE_LEVELS = 16.0
_WHOLE: Window = (0.0, 1.0, 0.0, 1.0)
_BLOCK_ROWS = 2**10
# Colour below this on the coarse grid is none.
_MAX_GREY_LEVELS = 4.0
# A small overlay: cells of the fine grid that differ by more than this, their share and extent.
_OVERLAY_LEVELS = 6.0
_MAX_OVERLAY_SHARE = 0.1
_MAX_OVERLAY_CELLS = (4, 11)
# A matched window is a choice out of hundreds, so it must fit better.
_ALIGNED_LEVELS_SHARE = 0.75
_MAX_MEAN_LEVELS = 1.5
# A brighter copy has clipped highlights, which its thumbnail holds a mean of.
_FITTED_LEVELS_SHARE, _MAX_COLOUR_SHARE = 1.5, 1.2


@dataclass(frozen=True)
class Thumbnails:
    """uint8 (N, 64, 64, 3) in YCrCb, and the shorter side of each original."""

    pixels: np.ndarray
    shorter_sides_px: np.ndarray


def grid_means(pixels: np.ndarray, cells: int) -> np.ndarray:
    """float32 (N, cells, cells, 3): means of the cells of uint8 (N, 64, 64, 3)."""
    step = SIDE_PX // cells
    tiles = pixels.reshape(len(pixels), cells, step, cells, step, 3)
    return tiles.mean(axis=(2, 4), dtype=np.float32)


def coarse_views(pixels: np.ndarray) -> np.ndarray:
    """float32 (N, 96): for `plausible`; luminance as a unit vector, then colours in levels."""
    blocks = [
        _coarse_views(pixels[start : start + _BLOCK_ROWS])
        for start in range(0, len(pixels), _BLOCK_ROWS)
    ]
    return np.concatenate(blocks)


def _coarse_views(pixels: np.ndarray) -> np.ndarray:
    luma = grid_means(pixels, _GRID)[..., 0].reshape(len(pixels), -1)
    luma -= luma.mean(axis=1, keepdims=True)
    chroma = grid_means(pixels, 4)[..., 1:].reshape(len(pixels), -1) - 128
    norms = np.linalg.norm(luma, axis=1, keepdims=True)
    return np.hstack([luma / np.maximum(norms, _MIN_COARSE_LEVELS), chroma])


def plausible(views: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """bool (M,): pairs (M, 2) that one edit may make of one another, by `coarse_views`."""
    split = _GRID**2
    first, second = views[pairs[:, 0]], views[pairs[:, 1]]
    distance = np.square(first[:, :split] - second[:, :split]).sum(axis=1)
    colours = np.abs(np.stack([first[:, split:], second[:, split:]]))
    is_grey = (colours.max(axis=2) <= _MAX_GREY_LEVELS).any(axis=0)
    change = np.abs(first[:, split:] - second[:, split:]).max(axis=1)
    return (distance <= _MAX_COARSE_DISTANCE) & (is_grey | (change <= _MAX_COARSE_COLOUR_LEVELS))


def same_picture(thumbnails: Thumbnails, i: int, j: int, min_ssim: float) -> bool:
    """Whether images i and j show the same picture in the same frame; symmetric in i and j."""
    first, second, side_px = _pair(thumbnails, i, j)
    if _agree(first, second, side_px, min_ssim):
        return True
    if _is_grey(first) != _is_grey(second) and _agree(
        _without_colour(first), _without_colour(second), side_px, min_ssim
    ):
        return True
    if _agree_but_for_levels(first, second, side_px, min_ssim) or _agree_but_for_overlay(
        first, second, side_px, min_ssim
    ):
        return True
    # Resizing a small image moves its edges by parts of a pixel.
    return side_px == _SMALL_SIDE_PX and any(
        same_window(thumbnails, *pair, _WHOLE, min_ssim) for pair in ((i, j), (j, i))
    )


def same_window(
    thumbnails: Thumbnails, whole: int, part: int, window: Window, min_ssim: float
) -> bool:
    """Whether image `part` is a window of image `whole`, near the one given."""
    first, second, _ = _pair(thumbnails, whole, part)
    cut = fit_window(first, second, window)
    if cut is None or np.abs((cut.astype(int) - second).mean(axis=(0, 1))).max() > _MAX_MEAN_LEVELS:
        return False
    return _agree(cut, second, _SMALL_SIDE_PX, min_ssim, _ALIGNED_LEVELS_SHARE)


def mirrored_picture(thumbnails: Thumbnails, i: int, j: int, min_ssim: float) -> bool:
    """Whether images i and j agree once one is mirrored."""
    first, second, side_px = _pair(thumbnails, i, j)
    return _agree(np.ascontiguousarray(first[:, ::-1]), second, side_px, min_ssim)


def _pair(thumbnails: Thumbnails, i: int, j: int) -> tuple[np.ndarray, np.ndarray, int]:
    smaller_px = min(thumbnails.shorter_sides_px[i], thumbnails.shorter_sides_px[j])
    side_px = SIDE_PX if smaller_px >= 2 * SIDE_PX else _SMALL_SIDE_PX
    return thumbnails.pixels[i], thumbnails.pixels[j], side_px


def _agree(
    first: np.ndarray,
    second: np.ndarray,
    side_px: int,
    min_ssim: float,
    levels_share: float = 1.0,
) -> bool:
    both = np.stack([first, second])
    luma, *chroma = _worst_difference(both, _GRID)
    colour_share = min(levels_share, _MAX_COLOUR_SHARE)
    if luma > MAX_LUMINANCE_LEVELS * levels_share or max(chroma) > MAX_COLOUR_LEVELS * colour_share:
        return False
    if _worst_difference(both, _FINE_GRID)[0] > MAX_FINE_LUMINANCE_LEVELS:
        return False
    return float(_similarity(first, second, side_px).mean()) >= min_ssim


def _agree_but_for_levels(
    first: np.ndarray, second: np.ndarray, side_px: int, min_ssim: float
) -> bool:
    return any(
        (fitted := fit_levels(one, other)) is not None
        and _agree(fitted, other, side_px, min_ssim, _FITTED_LEVELS_SHARE)
        for one, other in ((first, second), (second, first))
    )


def _agree_but_for_overlay(
    first: np.ndarray, second: np.ndarray, side_px: int, min_ssim: float
) -> bool:
    """Whether all but a small region agrees, which is lighter, or darker, all over."""
    fine = grid_means(np.stack([first, second]), _FINE_GRID)
    rise = fine[1, :, :, 0] - fine[0, :, :, 0]
    differs = np.abs(rise) > _OVERLAY_LEVELS
    if not differs.any() or differs.mean() > _MAX_OVERLAY_SHARE:
        return False
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    extent = sorted((np.ptp(rows) + 1, np.ptp(columns) + 1))
    if extent[0] > _MAX_OVERLAY_CELLS[0] or extent[1] > _MAX_OVERLAY_CELLS[1]:
        return False
    if len(np.unique(np.sign(rise[differs]))) > 1:
        return False
    elsewhere = ~differs
    if np.abs(fine[1] - fine[0])[elsewhere][:, 1:].max() > MAX_COLOUR_LEVELS:
        return False
    similar = cv2.resize(
        _similarity(first, second, side_px), (_FINE_GRID, _FINE_GRID), interpolation=cv2.INTER_AREA
    )
    return float(similar[elsewhere].mean()) >= min_ssim


def _is_grey(pixels: np.ndarray) -> bool:
    chroma = grid_means(pixels[None], _GRID)[..., 1:]
    return float(np.abs(chroma - 128).max()) <= _MAX_GREY_LEVELS


def _without_colour(pixels: np.ndarray) -> np.ndarray:
    grey = np.full_like(pixels, 128)
    grey[:, :, 0] = pixels[:, :, 0]
    return grey


def _worst_difference(both: np.ndarray, cells: int) -> np.ndarray:
    """Largest difference of cell means per channel, float32 (3,)."""
    first, second = grid_means(both, cells)
    return np.abs(first - second).reshape(-1, 3).max(axis=0)


def _similarity(first: np.ndarray, second: np.ndarray, side_px: int) -> np.ndarray:
    """SSIM of luminance at (side_px, side_px)."""
    lumas = [_shrink(image[:, :, 0], side_px) for image in (first, second)]
    return ssim_map(*lumas, 255)


def _shrink(luma: np.ndarray, side_px: int) -> np.ndarray:
    resized = cv2.resize(luma, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return resized.astype(np.float32)
