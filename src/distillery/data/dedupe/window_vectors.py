"""What a window of a picture looks like, in 48 numbers and three means.

In: sketches of pictures, and a window. Out: the lowest frequencies of its luminance as a unit
vector, and its mean luminance and colours; in float32 for the search, in float64 and the same in
any company for what is decided. Not here: which windows, and the search (`windows`).
"""

import functools

import numpy as np

from distillery.data.dedupe.phash import LUMA_PX

CHROMA_PX = 8
# What float32 may miss of a cosine and of a mean; what is near is computed again, exactly.
SLACK = 1e-3
_NUM_FREQUENCIES = 7
_RESAMPLED_PX = 16
_MIN_CONTRAST_LEVELS = 4.0
_UNITS = 2.0**20
_BLOCK_ROWS = 2**12  # as float32 at once, 4.6 kB each

Window = tuple[float, float, float, float]
"""Top, bottom, left and right, as shares of the side."""


def describe(sketches: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 (N, 48), zero where there is no contrast, and means (N, 3)."""
    luma_map, chroma_map = _maps(window)
    vectors = np.empty((len(sketches), luma_map.shape[1] - 1), dtype=np.float32)
    means = np.empty((len(sketches), 3), dtype=np.float32)
    for start in range(0, len(sketches), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        pixels = sketches[block].astype(np.float32)
        luma, red, blue = np.split(pixels, [LUMA_PX**2, LUMA_PX**2 + CHROMA_PX**2], axis=1)
        found = luma @ luma_map
        norms = np.linalg.norm(found[:, 1:], axis=1, keepdims=True)
        enough = norms >= _MIN_CONTRAST_LEVELS * _RESAMPLED_PX * (1 - SLACK)
        vectors[block] = np.where(enough, found[:, 1:] / np.maximum(norms, 1), 0)
        means[block] = np.stack([found[:, 0], red @ chroma_map, blue @ chroma_map], axis=1)
    return vectors, means


def describe_exactly(sketches: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """What `describe` gives, in float64; sums of whole numbers, equal in any order of terms."""
    luma_map, chroma_map = (np.rint(part * _UNITS) for part in _maps(window))
    pixels = sketches.astype(np.float64)
    luma, red, blue = np.split(pixels, [LUMA_PX**2, LUMA_PX**2 + CHROMA_PX**2], axis=1)
    found = luma @ luma_map / _UNITS
    norms = np.sqrt(np.square(found[:, 1:]).sum(axis=1, keepdims=True))
    enough = norms >= _MIN_CONTRAST_LEVELS * _RESAMPLED_PX
    vectors = np.where(enough, found[:, 1:] / np.maximum(norms, 1), 0)
    colours = [side @ chroma_map / _UNITS for side in (red, blue)]
    return vectors, np.stack([found[:, 0], *colours], axis=1)


@functools.cache
def _maps(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Matrices from luminance (1024,) to its mean and 48 frequencies, and from a colour to its
    mean. Frequencies are weighted by their root, since those of photos fall."""
    top, bottom, left, right = window
    rows = _resampling(top, bottom, LUMA_PX, _RESAMPLED_PX)
    columns = _resampling(left, right, LUMA_PX, _RESAMPLED_PX)
    basis, numbers = _dct(), np.arange(_NUM_FREQUENCIES)
    weights = np.sqrt(np.hypot(numbers[:, None], numbers))
    maps = np.einsum("ij,kl->ikjl", basis @ rows, basis @ columns) * weights[..., None, None]
    maps[0, 0] = np.outer(rows.mean(axis=0), columns.mean(axis=0))
    means = [
        _resampling(low, high, CHROMA_PX, 1)[0] for low, high in ((top, bottom), (left, right))
    ]
    luma_map = maps.reshape(_NUM_FREQUENCIES**2, -1).T
    return luma_map.astype(np.float32), np.outer(*means).ravel().astype(np.float32)


def _dct() -> np.ndarray:
    """(7, 16): the lowest rows of the orthonormal DCT-II."""
    numbers, places = np.arange(_NUM_FREQUENCIES)[:, None], np.arange(_RESAMPLED_PX) + 0.5
    basis = np.cos(np.pi * numbers * places / _RESAMPLED_PX) * np.sqrt(2 / _RESAMPLED_PX)
    basis[0] /= np.sqrt(2)
    return basis


def _resampling(low: float, high: float, size: int, num_cells: int) -> np.ndarray:
    """(num_cells, size): means of equal cells of the range [low, high] of the unit interval."""
    edges = np.linspace(low, high, num_cells + 1) * size
    pixels = np.arange(size)
    ends = np.minimum(edges[1:, None], pixels + 1)
    overlap = np.maximum(ends - np.maximum(edges[:-1, None], pixels), 0)
    return overlap / overlap.sum(axis=1, keepdims=True)
