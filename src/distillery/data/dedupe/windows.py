"""Pairs of which one picture looks like a window of the other: cropped, or put into a border.

In: a sketch of each picture (luminance at 32 x 32, colour at 8 x 8). Out: proposals, which
`compare` decides. Each of 22 windows of a picture is described by its mean luminance and colour and
the 48 lowest frequencies of its luminance, and looked up among the whole pictures: first by the
three means, in a grid of cells, then by the cosine between the frequencies. A picture's proposals
depend on the two pictures alone, not on what else is there.

On photos (n = 158), windows of 90% of the side at random places have a cosine above 0.93 to the
crop they stand for in 99% of cases; of pairs of different photos 0.01% have one above 0.9.
"""

import functools
import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from distillery.data.dedupe.phash import LUMA_PX

CHROMA_PX = 8
SKETCH_BYTES = LUMA_PX**2 + 2 * CHROMA_PX**2
MIN_COSINE = 0.9
_NUM_FREQUENCIES = 7
_RESAMPLED_PX = 16
_MIN_CONTRAST_LEVELS = 4.0
# What a slight misfit of the window moves the means of luminance and of the two colours by.
_TOLERANCE_LEVELS = np.array([4.0, 2.0, 2.0], dtype=np.float32)
# What float32 may miss of a cosine and of a mean; what is near is computed again, exactly.
_SLACK = 1e-3
_SEARCHED_LEVELS = _TOLERANCE_LEVELS + np.float32(0.05)
_UNITS = 2.0**20
_NO_PAIRS = np.empty((0, 2), dtype=np.int64)
_BLOCK_ROWS = 2**12
_BLOCK_PAIRS = 2**22
_MAX_ROWS_OF_ONE_CELL = 2**12

Window = tuple[float, float, float, float]
"""Top, bottom, left and right, as shares of the side."""


def _window_list() -> list[Window]:
    centred = [(1 - side) / 2 for side in (0.96, 0.91, 0.87, 0.835, 0.8)]
    places = [(0.1 * k / 2, 0.9 + 0.1 * k / 2) for k in range(3)]
    ninths = [(*rows, *columns) for rows in places for columns in places]
    bars = [(0.0, 1.0, low, 1 - low) for low in (0.05, 0.1)]
    sides = [(0.0, 1.0, 0.0, 0.9), (0.0, 1.0, 0.1, 1.0)]
    upright = [*bars, *sides]
    turned = [(left, right, top, bottom) for top, bottom, left, right in upright]
    return [(m, 1 - m, m, 1 - m) for m in centred] + ninths + upright + turned


WINDOWS = _window_list()
_NUM_CENTRED = 5
_WHOLE: Window = (0.0, 1.0, 0.0, 1.0)
# Of a picture in a border, compared without the outermost of a window: pixels there hold border.
_INSET = 0.06


def sketch(image: np.ndarray, luma: np.ndarray) -> bytes:
    """Bytes of one picture, uint8 (H, W, 3) RGB; `luma` is its uint8 (32, 32) luminance."""
    small = cv2.resize(image, (CHROMA_PX, CHROMA_PX), interpolation=cv2.INTER_AREA)
    chroma = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)[:, :, 1:]
    return luma.tobytes() + chroma.transpose(2, 0, 1).tobytes()


def window_pairs(sketches: np.ndarray, is_new: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Blocks of float64 (M, 4): a whole picture, the one that is its window, the window's place in
    `WINDOWS`, and the cosine.

    `sketches` is uint8 (N, 1152). A pair comes once per window, and either way round; with
    `is_new`, bool (N,), only where one of the two is new.
    """
    is_new = np.ones(len(sketches), dtype=bool) if is_new is None else is_new
    new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    for place, window in enumerate(WINDOWS):
        inset = _INSET if place < _NUM_CENTRED else 0.0
        if place in (0, _NUM_CENTRED):
            parts, part_means = _describe(sketches, _shrunk(_WHOLE, inset))
            held = _Cells(parts, part_means)
        wholes, means = _describe(sketches, _shrunk(window, inset))
        found = [(new[i], j) for i, j in held.alike(wholes[new], means[new])]
        if len(old):
            olds = _Cells(wholes[old], means[old])
            found += [(old[i], new[j]) for j, i in olds.alike(parts[new], part_means[new])]
        candidates = np.concatenate([_NO_PAIRS, *(np.stack(both, axis=1) for both in found)])
        apart = candidates[candidates[:, 0] != candidates[:, 1]]
        for start in range(0, len(apart), _BLOCK_ROWS):
            yield _exactly(sketches, apart[start : start + _BLOCK_ROWS], place)


def _exactly(sketches: np.ndarray, pairs: np.ndarray, place: int) -> np.ndarray:
    """The rows of `window_pairs` among pairs; none depends on the other ones."""
    inset = _INSET if place < _NUM_CENTRED else 0.0
    (one, means), (other, other_means) = (
        _describe_exactly(sketches[rows], _shrunk(window, inset))
        for rows, window in zip(pairs.T, (WINDOWS[place], _WHOLE), strict=True)
    )
    cosines = (one * other).sum(axis=1)
    fits = (np.abs(means - other_means) <= _TOLERANCE_LEVELS).all(axis=1) & (cosines >= MIN_COSINE)
    columns = (*pairs.T, np.full(len(pairs), place), cosines)
    return np.stack(columns, axis=1)[fits]


def _shrunk(window: Window, share: float) -> Window:
    """A window without so much of its side all round."""
    top, bottom, left, right = window
    rows, columns = share * (bottom - top), share * (right - left)
    return (top + rows, bottom - rows, left + columns, right - columns)


class _Cells:
    """Vectors by their three means, in a grid of cells two tolerances wide; few are one cell."""

    def __init__(self, vectors: np.ndarray, means: np.ndarray) -> None:
        self._is_one = len(means) <= _MAX_ROWS_OF_ONE_CELL
        cells = _cell(means) * (not self._is_one)
        self._order = np.argsort(cells, kind="stable")
        self._cells, self._vectors = cells[self._order], vectors[self._order]
        self._means = means

    def alike(
        self, vectors: np.ndarray, means: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows of `vectors`, rows held) of high cosine, with all that are within the tolerances.

        How products are summed depends on their number, so a little more than asked for is here.
        """
        everything = (np.arange(len(means)), np.zeros(len(means), np.int64))
        for rows, cells in [everything] if self._is_one else _probes(means):
            order = np.argsort(cells, kind="stable")
            rows, cells = rows[order], cells[order]
            asking = vectors[rows]
            names, begins = np.unique(cells, return_index=True)
            ends = np.append(begins[1:], len(cells))
            lows = np.searchsorted(self._cells, names)
            highs = np.searchsorted(self._cells, names, side="right")
            some = highs > lows
            for begin, end, low, high in zip(
                *(edges[some].tolist() for edges in (begins, ends, lows, highs)), strict=True
            ):
                step = max(1, _BLOCK_PAIRS // (high - low))
                for start in range(begin, end, step):
                    cosines = asking[start : min(start + step, end)] @ self._vectors[low:high].T
                    if cosines.max() >= MIN_COSINE - _SLACK:
                        i, j = np.nonzero(cosines >= MIN_COSINE - _SLACK)
                        i, j = rows[start + i], self._order[low + j]
                        near = np.abs(means[i] - self._means[j]) <= _SEARCHED_LEVELS
                        if (near := near.all(axis=1)).any():
                            yield i[near], j[near]


def _describe(sketches: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 (N, 48), zero where there is no contrast, and means (N, 3)."""
    luma_map, chroma_map = _maps(window)
    vectors = np.empty((len(sketches), luma_map.shape[1] - 1), dtype=np.float32)
    means = np.empty((len(sketches), 3), dtype=np.float32)
    for start in range(0, len(sketches), 2**15):
        block = slice(start, start + 2**15)
        pixels = sketches[block].astype(np.float32)
        luma, red, blue = np.split(pixels, [LUMA_PX**2, LUMA_PX**2 + CHROMA_PX**2], axis=1)
        found = luma @ luma_map
        norms = np.linalg.norm(found[:, 1:], axis=1, keepdims=True)
        enough = norms >= _MIN_CONTRAST_LEVELS * _RESAMPLED_PX * (1 - _SLACK)
        vectors[block] = np.where(enough, found[:, 1:] / np.maximum(norms, 1), 0)
        means[block] = np.stack([found[:, 0], red @ chroma_map, blue @ chroma_map], axis=1)
    return vectors, means


def _describe_exactly(sketches: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """What `_describe` gives, in float64; sums of whole numbers, equal in any order of terms."""
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


def _cell(means: np.ndarray) -> np.ndarray:
    """int64 (N,): the cell of each three means; cells are two tolerances wide."""
    numbers = np.floor(means / (2 * _SEARCHED_LEVELS)).astype(np.int64)
    return (numbers[:, 0] * 256 + numbers[:, 1]) * 256 + numbers[:, 2]


def _probes(means: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, cells) that hold everything within the tolerances; no cell twice for a row."""
    width = 2 * _SEARCHED_LEVELS
    low, high = (np.floor((means + s * _SEARCHED_LEVELS) / width) for s in (-1, 1))
    for corner in itertools.product((False, True), repeat=3):
        chosen = np.where(corner, high, low)
        is_new = ((high != low) | ~np.array(corner)).all(axis=1)
        rows = np.flatnonzero(is_new)
        yield rows, _cell((chosen[rows] + 0.5) * width)
