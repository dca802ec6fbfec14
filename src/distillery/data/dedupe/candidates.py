"""Pairs of hashes that differ in few bits, without comparing all pairs.

In: 64-bit hashes. Out: blocks of index pairs within a Hamming distance. Multi-index hashing
(Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012) with
radii that differ by piece (Qin et al., "GPH: Similarity Search in Hamming Space", ICDE 2018): of
four 16-bit pieces, one differs by at most its radius as soon as radii + 1 sum to more than the
distance. Hashes are sorted by piece, so that a bucket is a run, and each pair of buckets is looked
at once. A million uniform hashes at distance 10 are 3.3e9 comparisons.
"""

import itertools
from collections.abc import Iterator

import numpy as np

_NUM_PIECES = 4
_PIECE_BITS = 16
_BLOCK_PAIRS = 2**18  # of one comparison: its arrays stay in the cache
_YIELD_PAIRS = 2**16


def hamming_pairs(
    hashes: np.ndarray, max_distance: int, others: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Blocks of int64 (M, 2), rows i < j, of hashes within `max_distance` bits; each pair once.

    `hashes` is uint64 (N,). With `others`, uint64 (M,), the rows i and j of all pairs of one of
    `hashes` and one of `others`, i and j in any order. Memory is bounded by the block, so a
    collection of equal hashes costs time, not memory.
    """
    waiting, num_waiting = [], 0
    for pairs in _near_pairs(hashes, others, _radii(max_distance), max_distance):
        waiting.append(pairs)
        num_waiting += len(pairs)
        if num_waiting >= _YIELD_PAIRS:
            yield np.concatenate(waiting)
            waiting, num_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)


def new_pairs(
    hashes: np.ndarray, max_distance: int, is_new: np.ndarray, others: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """The blocks of `hamming_pairs` without the pairs of two rows that are not new.

    `is_new` is bool (N,). With `others`, of as many rows, a pair is (i, j) of hash i and other j.
    """
    new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    if not len(old):
        yield from hamming_pairs(hashes, max_distance, others)
        return
    sides = [(new, new), (new, old)] if others is None else [(new, new), (new, old), (old, new)]
    for one, other in sides:
        alone = others is None and one is other
        held = None if alone else (hashes if others is None else others)[other]
        for block in hamming_pairs(hashes[one], max_distance, held):
            pairs = np.stack([one[block[:, 0]], other[block[:, 1]]], axis=1)
            yield np.sort(pairs, axis=1) if others is None else pairs


def _radii(max_distance: int) -> list[int]:
    """Per piece the distance within which buckets are looked up; none for -1."""
    share, left = divmod(max_distance + 1, _NUM_PIECES)
    return [share - (piece >= left) for piece in range(_NUM_PIECES)]


def _near_pairs(
    hashes: np.ndarray, others: np.ndarray | None, radii: list[int], max_distance: int
) -> Iterator[np.ndarray]:
    for piece, radius in enumerate(radii):
        values, ordered, order = _sorted(hashes, piece)
        held = (values, ordered, order) if others is None else _sorted(others, piece)
        starts = np.searchsorted(held[0], np.arange(2**_PIECE_BITS + 1))
        for mask in _masks_within(radius):
            for left, right in _bucket_pairs(values, starts, mask, others is None):
                differing = ordered[left] ^ held[1][right]
                near = np.flatnonzero(np.bitwise_count(differing) <= max_distance)
                near = near[~_found_before(differing[near], radii[:piece])]
                if len(near):
                    pairs = np.stack([order[left[near]], held[2][right[near]]], axis=1)
                    yield np.sort(pairs, axis=1) if others is None else pairs


def _sorted(hashes: np.ndarray, piece: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of a piece in order, the hashes in that order, and the order."""
    values = _piece(hashes, piece)
    order = np.argsort(values, kind="stable")
    return values[order], hashes[order], order


def _piece(hashes: np.ndarray, piece: int) -> np.ndarray:
    """int32 (N,): 16 bits of each hash."""
    return ((hashes >> np.uint64(_PIECE_BITS * piece)) & np.uint64(0xFFFF)).astype(np.int32)


def _found_before(differing: np.ndarray, radii: list[int]) -> np.ndarray:
    """bool (M,): whether an earlier piece has had the pair, by the bits in which it differs."""
    found = np.zeros(len(differing), dtype=bool)
    for piece, radius in enumerate(radii):
        found |= np.bitwise_count(_piece(differing, piece)) <= radius
    return found


def _masks_within(radius: int) -> list[int]:
    """All 16-bit numbers with at most `radius` bits set; none for -1."""
    return [
        sum(1 << bit for bit in bits)
        for count in range(radius + 1)
        for bits in itertools.combinations(range(_PIECE_BITS), count)
    ]


def _bucket_pairs(
    values: np.ndarray, starts: np.ndarray, mask: int, is_self: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(left, right) places in order of the values, which differ by `mask`, in blocks.

    Left of `values`, right of what `starts` belongs to; where these are one, each pair once.
    """
    targets = values ^ mask
    left = np.flatnonzero(targets >= values) if is_self else np.arange(len(values))
    first = starts[targets[left]] if mask or not is_self else left + 1
    counts = starts[targets[left] + 1] - first
    some = np.flatnonzero(counts)
    left, first, counts = left[some], first[some], counts[some]
    ends = np.cumsum(counts)
    for block in _blocks(ends):
        num, done = counts[block], ends[block.start - 1] if block.start else 0
        shifts = first[block] - (ends[block] - num - done)
        within = np.arange(ends[block.stop - 1] - done)
        yield np.repeat(left[block], num), within + np.repeat(shifts, num)


def _blocks(ends: np.ndarray) -> Iterator[slice]:
    """Slices of items with `_BLOCK_PAIRS` pairs at most, or one item; `ends` are cumulated."""
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, done + _BLOCK_PAIRS, side="right"))
        yield slice(first, max(last, first + 1))
        first = max(last, first + 1)
