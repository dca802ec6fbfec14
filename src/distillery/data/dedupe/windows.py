"""Pairs of which one picture looks like a window of the other: cropped, or put into a border.

In: a sketch of each picture (luminance at 32 x 32, colour at 8 x 8). Out: proposals, which
`compare` decides. Each of 22 windows of a picture is described by its mean luminance and colour and
the 48 lowest frequencies of its luminance, and looked up among the whole pictures: first by the
three means, in a grid of cells, then by the cosine between the frequencies. A picture's proposals
depend on the two pictures alone, not on what else is there.

On photos (n = 158), windows of 90% of the side at random places have a cosine above 0.93 to the
crop they stand for in 99% of cases; of pairs of different photos 0.01% have one above 0.9.
"""

import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from distillery.data.dedupe.phash import LUMA_PX
from distillery.data.dedupe.window_vectors import (
    CHROMA_PX,
    SLACK,
    Window,
    describe,
    describe_exactly,
)

SKETCH_BYTES = LUMA_PX**2 + 2 * CHROMA_PX**2
MIN_COSINE = 0.9
# What a slight misfit of the window moves the means of luminance and of the two colours by.
_TOLERANCE_LEVELS = np.array([4.0, 2.0, 2.0], dtype=np.float32)
_SEARCHED_LEVELS = _TOLERANCE_LEVELS + np.float32(0.05)
_LUMA_CELLS = 2  # that a tolerance is wide
_CELL_LEVELS = _SEARCHED_LEVELS * np.array([1 / _LUMA_CELLS, 2, 2], dtype=np.float32)
_NO_PAIRS = np.empty((0, 2), dtype=np.int64)
_BLOCK_ROWS = 2**12
_CHUNK_ROWS = 2**17
_BLOCK_PAIRS = 2**22
_MAX_ROWS_OF_ONE_CELL = 2**12


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


def best_windows(sketches: np.ndarray, is_new: np.ndarray | None = None) -> np.ndarray:
    """int64 (M, 3), sorted: a whole picture, the one that is its window, and the place in `WINDOWS`
    of the window of the highest cosine.

    `sketches` is uint8 (N, 1152), or what gives arrays as one does. A pair comes either way round;
    with `is_new`, bool (N,), only where one of the two is new. Memory is 200 bytes a row at once,
    and 32 a pair.
    """
    is_new = np.ones(len(sketches), dtype=bool) if is_new is None else is_new
    centred, others = range(_NUM_CENTRED), range(_NUM_CENTRED, len(WINDOWS))
    found = [
        block
        for inset, places in ((_INSET, centred), (0.0, others))
        for block in _pairs(sketches, is_new, places, inset)
    ]
    return _best(np.concatenate([np.empty((0, 4)), *found]))[:, :3].astype(np.int64)


def _pairs(
    sketches: np.ndarray, is_new: np.ndarray, places: range, inset: float
) -> Iterator[np.ndarray]:
    """Blocks of float64 (M, 4): whole, window, place of the best of some windows, cosine."""
    new = np.flatnonzero(is_new)
    vectors, means = describe(sketches, _shrunk(_WHOLE, inset))
    held = [(np.arange(len(means)), _Cells(vectors, means))]
    if len(new) < len(means):
        held.append((new, _Cells(vectors[new], means[new])))
    del vectors
    for start in range(0, len(sketches), _CHUNK_ROWS):
        chunk = sketches[start : start + _CHUNK_ROWS]
        fresh = is_new[start : start + _CHUNK_ROWS]
        found = [np.empty((0, 4))]
        for place in places:
            wholes, means = describe(chunk, _shrunk(WINDOWS[place], inset))
            for asking, (numbers, cells) in zip((fresh, ~fresh), held, strict=False):
                rows = np.flatnonzero(asking)
                alike = cells.alike(wholes[rows], means[rows])
                pairs = [np.stack([start + rows[i], numbers[j]], axis=1) for i, j in alike]
                found += _compared(sketches, np.concatenate([_NO_PAIRS, *pairs]), place)
        yield _best(np.concatenate(found))


def _compared(sketches: np.ndarray, pairs: np.ndarray, place: int) -> Iterator[np.ndarray]:
    apart = pairs[pairs[:, 0] != pairs[:, 1]]
    for start in range(0, len(apart), _BLOCK_ROWS):
        yield _exactly(sketches, apart[start : start + _BLOCK_ROWS], place)


def _best(found: np.ndarray) -> np.ndarray:
    """Of each pair, either way round, the row of the highest cosine; sorted by pair."""
    found = found[np.lexsort((found[:, 2], -found[:, 3], found[:, 1], found[:, 0]))]
    is_first = np.append(True, (found[1:, :2] != found[:-1, :2]).any(axis=1))[: len(found)]
    return found[is_first]


def _exactly(sketches: np.ndarray, pairs: np.ndarray, place: int) -> np.ndarray:
    """Those of pairs that are alike, with place and cosine, float64 (M, 4), each on its own."""
    inset = _INSET if place < _NUM_CENTRED else 0.0
    (one, means), (other, other_means) = (
        describe_exactly(sketches[rows], _shrunk(window, inset))
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
    """Vectors by their three means, in a grid of cells: two tolerances wide in the colours, half a
    tolerance in luminance, of which five cells lie in a row; few vectors are one cell."""

    def __init__(self, vectors: np.ndarray, means: np.ndarray) -> None:
        self._is_one = len(means) <= _MAX_ROWS_OF_ONE_CELL
        cells = _cell(np.floor(means / _CELL_LEVELS)) * (not self._is_one)
        self._order = np.argsort(cells, kind="stable")
        self._cells, self._vectors = cells[self._order], vectors[self._order]
        self._means = means

    def alike(
        self, vectors: np.ndarray, means: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows of `vectors`, rows held) of high cosine, with all that are within the tolerances.

        How products are summed depends on their number, so a little more than asked for is here.
        """
        for cells in [np.zeros(len(means), np.int64)] if self._is_one else _probes(means):
            rows = np.argsort(cells, kind="stable")
            asking = vectors[rows]
            names, begins = np.unique(cells[rows], return_index=True)
            ends = np.append(begins[1:], len(cells))
            lows = np.searchsorted(self._cells, names - _LUMA_CELLS)
            highs = np.searchsorted(self._cells, names + _LUMA_CELLS, side="right")
            some = highs > lows
            for begin, end, low, high in zip(
                *(edges[some].tolist() for edges in (begins, ends, lows, highs)), strict=True
            ):
                step = max(1, _BLOCK_PAIRS // (high - low))
                for start in range(begin, end, step):
                    cosines = asking[start : min(start + step, end)] @ self._vectors[low:high].T
                    if cosines.max() >= MIN_COSINE - SLACK:
                        i, j = np.nonzero(cosines >= MIN_COSINE - SLACK)
                        i, j = rows[start + i], self._order[low + j]
                        near = np.abs(means[i] - self._means[j]) <= _SEARCHED_LEVELS
                        if (near := near.all(axis=1)).any():
                            yield i[near], j[near]


def _cell(places: np.ndarray) -> np.ndarray:
    """int64 (N,): the numbers of cells at places (N, 3) of the grid, along luminance first."""
    numbers = places.astype(np.int64)
    return (numbers[:, 1] * 1024 + numbers[:, 2]) * 1024 + numbers[:, 0]


def _probes(means: np.ndarray) -> Iterator[np.ndarray]:
    """Cells (N,): of the four columns around each three means, the cell of its luminance."""
    places = np.floor(means / _CELL_LEVELS)
    lows = np.floor((means - _SEARCHED_LEVELS) / _CELL_LEVELS)
    for red, blue in itertools.product((0, 1), repeat=2):
        yield _cell(np.stack([places[:, 0], lows[:, 1] + red, lows[:, 2] + blue], axis=1))
