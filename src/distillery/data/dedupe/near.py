"""Pairs of rows that show the same picture, or its mirror image.

In: rows with their hashes, and where their sketches and thumbnails come from. Out: enough pairs to
connect all rows that are one. Hashes propose pairs in one frame (recompressed, resized, brighter,
grey, watermarked), sketches propose crops and borders, hashes of mirrored sketches mirror images,
and where there is an `embedding`, it proposes pairs to be searched for larger crops; `compare`
decides. Pairs that others have connected are not compared, so that a collection of equal
pictures costs a comparison a picture, not a pair; nor are pairs that an earlier run has looked at
(`known`).
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from distillery.data.dedupe.candidates import new_pairs
from distillery.data.dedupe.clusters import Clusters
from distillery.data.dedupe.compare import (
    Thumbnails,
    coarse_views,
    mirrored_picture,
    plausible,
    same_picture,
    same_window,
)
from distillery.data.dedupe.crops import WHOLE_PX, best_crops
from distillery.data.dedupe.embedding import Embedding
from distillery.data.dedupe.known import Known, Pairs
from distillery.data.dedupe.phash import LUMA_PX, mirrored_hashes
from distillery.data.dedupe.rows import Rows
from distillery.data.dedupe.windows import WINDOWS, best_windows

_NUM_WHOLES = 8
_BLOCK_ROWS = 2**13
Stored = np.ndarray  # or what gives arrays by number, slice and array of numbers


class Views(Protocol):
    """Where the looks of rows come from."""

    def sketches(self, rows: Rows) -> Stored:
        """uint8 (N, 1152), as `windows.sketch` makes them."""

    def thumbnails(self, rows: Rows) -> Stored:
        """uint8 (N, 64, 64, 3), as `compare.thumbnail` makes them."""

    def images(self, rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
        """(place among the rows, uint8 (H, W, 3)), in any order."""


def near_duplicates(
    rows: Rows,
    views: Views,
    max_hamming: int,
    min_ssim: float,
    known: Known | None = None,
    embedding: Embedding | None = None,
) -> Pairs:
    """Index pairs of rows that show the same picture: enough to connect all that do.

    `rows` are ranked: of those that agree in one frame, the first eight are compared with windows,
    since one of them may be too bright for a crop that another is the whole of.
    """
    known = known or Known()
    clusters = Clusters(len(rows))
    framed = _framed_pairs(rows, views, max_hamming, min_ssim, known)
    for i, j in framed:
        clusters.join(i, j)
    first = _first_of(clusters.roots(), _NUM_WHOLES)
    searches = [_window_pairs(rows.take(first), views, min_ssim, known)]
    if embedding is not None:
        searches.append(_embedded_pairs(rows.take(first), views, min_ssim, embedding, known))
    for pairs in searches:
        num_before = len(framed)
        for i, j in pairs:
            if clusters.root(int(first[i])) != clusters.root(int(first[j])):
                clusters.join(int(first[i]), int(first[j]))
                framed.append((int(first[i]), int(first[j])))
    if embedding is not None:
        num = len(framed) - num_before
        print(f"deduplicate: {num} images are duplicates by the embedding alone", file=sys.stderr)
    return framed


def _first_of(roots: np.ndarray, num: int) -> np.ndarray:
    """int64 (M,): in order, the first `num` rows of each cluster, by its root."""
    order = np.argsort(roots, kind="stable")
    begins = np.flatnonzero(np.append(True, np.diff(roots[order]) != 0)[: len(roots)])
    places = np.arange(len(roots)) - np.repeat(begins, np.diff(np.append(begins, len(roots))))
    return np.sort(order[places < num])


def _framed_pairs(
    rows: Rows, views: Views, max_hamming: int, min_ssim: float, known: Known
) -> Pairs:
    """Pairs in one frame. The search for candidates runs twice rather than hold all pairs: once to
    know which images to decode, once, over these, to compare them."""
    names = rows.names
    is_new, found = known.among("frames", names)
    hashes = rows.phashes
    proposed = np.zeros(len(rows), dtype=bool)
    for block in new_pairs(hashes, max_hamming, is_new):
        proposed[block] = True
    wanted = np.flatnonzero(proposed)
    if len(wanted):
        thumbnails = _thumbnails(rows.take(wanted), views)
        blocks = new_pairs(hashes[wanted], max_hamming, is_new[wanted])
        clusters = _clusters_among(wanted, found, len(rows))
        confirmed = sorted(_confirm(thumbnails, blocks, min_ssim, clusters))
        found += [(int(wanted[i]), int(wanted[j])) for i, j in confirmed]
    known.keep("frames", names, found)
    return found


def _clusters_among(wanted: np.ndarray, pairs: Pairs, num_rows: int) -> Clusters:
    """The sets that pairs of rows make of the rows `wanted`, as numbered there."""
    everywhere, here = Clusters(num_rows), Clusters(len(wanted))
    for i, j in pairs:
        everywhere.join(i, j)
    roots = everywhere.roots()[wanted]
    order = np.argsort(roots, kind="stable")
    for i, j in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
        if roots[i] == roots[j]:
            here.join(i, j)
    return here


def _window_pairs(rows: Rows, views: Views, min_ssim: float, known: Known) -> Pairs:
    """Pairs of which one is a window of the other."""
    names = rows.names
    is_new, found = known.among("windows", names)
    proposed = np.empty((0, 3), np.int64)
    if is_new.any():
        proposed = best_windows(views.sketches(rows), is_new)

    def is_one(thumbnails: Thumbnails, i: int, j: int, window: int) -> bool:
        return same_window(thumbnails, i, j, WINDOWS[window], min_ssim)

    found += _confirm_few(rows, views, proposed, is_one, found)
    known.keep("windows", names, found)
    return found


def _embedded_pairs(
    rows: Rows, views: Views, min_ssim: float, embedding: Embedding, known: Known
) -> Pairs:
    """Pairs that the embedding finds alike, of which one is the other, or any window of it."""
    names = rows.names
    is_new, found = known.among(embedding.search, names)
    proposed = [np.empty((0, 6), np.int64)]
    if is_new.any():
        sketches = views.sketches(rows)
        proposed += [best_crops(sketches, pairs) for pairs in embedding.pairs(rows, views, is_new)]

    def is_one(thumbnails: Thumbnails, i: int, j: int, *edges_px: int) -> bool:
        if edges_px == WHOLE_PX:
            pair = coarse_views(thumbnails.pixels[[i, j]])
            return bool(plausible(pair, np.array([[0, 1]]))[0]) and same_picture(
                thumbnails, i, j, min_ssim
            )
        top, bottom, left, right = (edge / LUMA_PX for edge in edges_px)
        return same_window(thumbnails, i, j, (top, bottom, left, right), min_ssim)

    found += _confirm_few(rows, views, np.concatenate(proposed), is_one, found)
    known.keep(embedding.search, names, found)
    return found


def mirrored_pairs(
    rows: Rows,
    views: Views,
    max_hamming: int,
    min_ssim: float,
    known: Known | None = None,
) -> Pairs:
    """Index pairs of rows that show mirror images of one another, none of which are one picture."""
    known = known or Known()
    names = rows.names
    is_new, found = known.among("mirrors", names)
    if not is_new.any():
        known.keep("mirrors", names, found)
        return found
    mirrored = _mirrored_hashes(views.sketches(rows))
    blocks = [*new_pairs(rows.phashes, max_hamming, is_new, mirrored)]
    pairs = np.unique(np.sort(np.concatenate([np.empty((0, 2), np.int64), *blocks]), 1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]

    def is_one(thumbnails: Thumbnails, i: int, j: int) -> bool:
        return mirrored_picture(thumbnails, i, j, min_ssim)

    found += _confirm_few(rows, views, pairs, is_one, found)
    known.keep("mirrors", names, found)
    return found


def _mirrored_hashes(sketches: Stored) -> np.ndarray:
    """uint64 (N,)."""
    blocks = (sketches[i : i + _BLOCK_ROWS] for i in range(0, len(sketches), _BLOCK_ROWS))
    lumas = (block[:, : LUMA_PX**2].reshape(-1, LUMA_PX, LUMA_PX) for block in blocks)
    return np.concatenate([np.empty(0, np.uint64), *map(mirrored_hashes, lumas)])


def _confirm_few(
    rows: Rows,
    views: Views,
    proposed: np.ndarray,
    is_one: Callable[..., bool],
    connected: Pairs,
) -> Pairs:
    """The pairs, of rows (i, j, ...) of `proposed`, that connect two clusters of `connected`."""
    wanted = np.unique(proposed[:, :2])
    if not len(wanted):
        return []
    thumbnails = _thumbnails(rows.take(wanted), views)
    clusters, found = Clusters(len(rows)), []
    for i, j in connected:
        clusters.join(i, j)
    for start in range(0, len(proposed), _BLOCK_ROWS):
        block = proposed[start : start + _BLOCK_ROWS]
        places = np.searchsorted(wanted, block[:, :2]).tolist()
        for (i, j, *more), place in zip(block.tolist(), places, strict=True):
            if clusters.root(i) != clusters.root(j) and is_one(thumbnails, *place, *more):
                clusters.join(i, j)
                found.append((i, j))
    return found


def _thumbnails(rows: Rows, views: Views) -> Thumbnails:
    return Thumbnails(views.thumbnails(rows), rows.shorter_sides_px)


def _confirm(
    thumbnails: Thumbnails, blocks: Iterable[np.ndarray], min_ssim: float, clusters: Clusters
) -> Iterator[tuple[int, int]]:
    """The pairs of one frame that connect two clusters."""
    coarse = coarse_views(thumbnails.pixels)
    for block in blocks:
        roots = clusters.roots()
        apart = block[roots[block[:, 0]] != roots[block[:, 1]]]
        near = apart[plausible(coarse, apart)]
        for i, j in near[np.lexsort((near[:, 1], near[:, 0]))].tolist():
            if clusters.root(i) != clusters.root(j) and same_picture(thumbnails, i, j, min_ssim):
                clusters.join(i, j)
                yield i, j
