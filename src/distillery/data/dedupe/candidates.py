"""Pairs of hashes that differ in few bits, without comparing all pairs.

In: 64-bit hashes. Out: blocks of index pairs within a Hamming distance. Multi-index hashing
(Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012): of
four 16-bit pieces, at least one differs in at most a quarter of the distance, so only such buckets
are looked up. A million hashes spread over 65,536 buckets per piece.
"""

import itertools
from collections.abc import Iterator

import numpy as np

_NUM_PIECES = 4
_PIECE_BITS = 16
_BLOCK_PAIRS = 2**22


def hamming_pairs(hashes: np.ndarray, max_distance: int) -> Iterator[np.ndarray]:
    """Blocks of int64 (M, 2), rows i < j, of hashes within `max_distance` bits.

    `hashes` is uint64 (N,). A pair can come in several blocks. Memory is bounded by the block, so
    a collection of equal hashes costs time, not memory.
    """
    masks = _masks_within(max_distance // _NUM_PIECES)
    for piece in range(_NUM_PIECES):
        values = ((hashes >> np.uint64(_PIECE_BITS * piece)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(values, kind="stable")
        starts = np.searchsorted(values[order], np.arange(2**_PIECE_BITS + 1))
        for mask in masks:
            for rows, columns in _bucket_pairs(values ^ mask, order, starts):
                near = np.bitwise_count(hashes[rows] ^ hashes[columns]) <= max_distance
                if near.any():
                    yield np.stack([rows[near], columns[near]], axis=1)


def _masks_within(radius: int) -> list[int]:
    """All 16-bit numbers with at most `radius` bits set."""
    return [
        sum(1 << bit for bit in bits)
        for count in range(radius + 1)
        for bits in itertools.combinations(range(_PIECE_BITS), count)
    ]


def _bucket_pairs(
    targets: np.ndarray, order: np.ndarray, starts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, j), i < j, for every j in the bucket that item i targets, in blocks."""
    low, counts = starts[targets], starts[targets + 1] - starts[targets]
    ends = np.cumsum(counts)
    first, num_items = 0, len(targets)
    while first < num_items:
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + _BLOCK_PAIRS, side="right")), first + 1)
        block = slice(first, last)
        rows = np.repeat(np.arange(first, last), counts[block])
        within = np.arange(len(rows)) - np.repeat(ends[block] - counts[block] - done, counts[block])
        columns = order[np.repeat(low[block], counts[block]) + within]
        forward = rows < columns
        yield rows[forward], columns[forward]
        first = last
