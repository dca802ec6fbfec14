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


def hamming_pairs(hashes: np.ndarray, max_distance: int) -> Iterator[np.ndarray]:
    """Blocks of int64 (M, 2), rows i < j, of hashes within `max_distance` bits; each pair once.

    `hashes` is uint64 (N,). Memory is bounded by the block, so a collection of equal hashes costs
    time, not memory.
    """
    waiting, num_waiting = [], 0
    for pairs in _near_pairs(hashes, _radii(max_distance), max_distance):
        waiting.append(pairs)
        num_waiting += len(pairs)
        if num_waiting >= _YIELD_PAIRS:
            yield np.concatenate(waiting)
            waiting, num_waiting = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _radii(max_distance: int) -> list[int]:
    """Per piece the distance within which buckets are looked up; none for -1."""
    share, left = divmod(max_distance + 1, _NUM_PIECES)
    return [share - (piece >= left) for piece in range(_NUM_PIECES)]


def _near_pairs(hashes: np.ndarray, radii: list[int], max_distance: int) -> Iterator[np.ndarray]:
    for piece, radius in enumerate(radii):
        values = _piece(hashes, piece)
        order = np.argsort(values, kind="stable")
        values, ordered = values[order], hashes[order]
        starts = np.searchsorted(values, np.arange(2**_PIECE_BITS + 1))
        for mask in _masks_within(radius):
            for left, right in _bucket_pairs(values, starts, mask):
                differing = ordered[left] ^ ordered[right]
                near = np.flatnonzero(np.bitwise_count(differing) <= max_distance)
                near = near[~_found_before(differing[near], radii[:piece])]
                if len(near):
                    yield np.sort(np.stack([order[left[near]], order[right[near]]], 1), axis=1)


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
    values: np.ndarray, starts: np.ndarray, mask: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(left, right) places in the order of `values`, whose values differ by `mask`, in blocks."""
    targets = values ^ mask
    left = np.flatnonzero(targets >= values)
    first = starts[targets[left]] if mask else left + 1
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
