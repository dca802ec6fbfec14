"""Resolves duplicates over all parts.

In: the curated rows. Out: which rows stay, in which cluster, and which go and why. Rows are
duplicates when their bytes or their URLs are equal, or when they show the same picture (`near`).
Connected rows are one cluster, of which the best copy stays; its mirrored copies are counted apart,
and stay or go as asked. The result does not depend on the order of rows, shards or parts.
"""

from dataclasses import dataclass

import numpy as np

from distillery.data.dedupe.clusters import Clusters
from distillery.data.dedupe.embedding import Embedding
from distillery.data.dedupe.known import Known
from distillery.data.dedupe.near import Views, mirrored_pairs, near_duplicates
from distillery.data.dedupe.rows import Rows

REASONS = DUPLICATE_BYTES, DUPLICATE_URL, NEAR_DUPLICATE, MIRRORED = (
    "duplicate_bytes",
    "duplicate_url",
    "near_duplicate",
    "mirrored",
)
_UNIQUE = -1


@dataclass(frozen=True)
class Found:
    """Places in `rows`, int64: of K rows that stay and G that go.

    `clusters` (K,) are the best copies of the clusters of those that stay; `reasons` (G,), places
    in `REASONS`, and `duplicate_of` (G,), the copies that stay, are of those that go; `mirrored`
    (M, 2) are rows that stay and the better copies that they mirror.
    """

    rows: Rows
    kept: np.ndarray
    clusters: np.ndarray
    gone: np.ndarray
    reasons: np.ndarray
    duplicate_of: np.ndarray
    mirrored: np.ndarray

    def num_gone(self) -> dict[str, int]:
        """{reason: number of rows}, in the order in which they come."""
        codes, firsts, counts = np.unique(self.reasons, return_index=True, return_counts=True)
        return {REASONS[codes[i]]: int(counts[i]) for i in np.argsort(firsts)}


def find_duplicates(
    rows: Rows,
    views: Views,
    *,
    max_hamming: int,
    min_ssim: float,
    drop_mirrored: bool,
    known: Known | None = None,
    embedding: Embedding | None = None,
) -> Found:
    """What stays and what goes of `rows`, which are ranked, best first.

    `known` is what earlier runs have found of the same pictures; this run's findings go there.
    `embedding` proposes more pairs.
    """
    clusters = Clusters(len(rows))
    reasons = np.full(len(rows), _UNIQUE, np.int8)
    digests = np.unique(rows.names, return_inverse=True)[1]
    for reason, numbers in ((DUPLICATE_BYTES, digests), (DUPLICATE_URL, rows.urls)):
        firsts, others = _equal_pairs(numbers, reasons == _UNIQUE)
        reasons[others] = REASONS.index(reason)
        for i, j in zip(firsts.tolist(), others.tolist(), strict=True):
            clusters.join(i, j)
    unique = np.flatnonzero(reasons == _UNIQUE)
    near = near_duplicates(rows.take(unique), views, max_hamming, min_ssim, known, embedding)
    for i, j in near:
        clusters.join(int(unique[i]), int(unique[j]))
    roots = clusters.roots()
    best = unique[roots[unique] == unique]
    families = Clusters(len(rows))  # of pictures and their mirror images
    for i, j in mirrored_pairs(rows.take(best), views, max_hamming, min_ssim, known):
        families.join(int(best[i]), int(best[j]))
    return _found(rows, roots, families.roots()[roots], reasons, drop_mirrored)


def _found(
    rows: Rows, best: np.ndarray, first: np.ndarray, reasons: np.ndarray, drop_mirrored: bool
) -> Found:
    """`best` and `first` are, of every row, the best copy and the best of it and its mirrors."""
    places, stays = np.arange(len(rows)), first if drop_mirrored else best
    why = np.where(reasons == _UNIQUE, REASONS.index(NEAR_DUPLICATE), reasons)
    why[best == places] = REASONS.index(MIRRORED)
    kept, gone = np.flatnonzero(stays == places), np.flatnonzero(stays != places)
    mirrored = kept[first[kept] != kept]
    return Found(
        rows=rows,
        kept=kept,
        clusters=first[kept],
        gone=gone,
        reasons=why[gone],
        duplicate_of=stays[gone],
        mirrored=np.stack([mirrored, first[mirrored]], axis=1),
    )


def _equal_pairs(numbers: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, later) rows, of those `among`, for every number that comes again; none for -1."""
    rows = np.flatnonzero(among & (numbers >= 0))
    order = np.argsort(numbers[rows], kind="stable")
    held = numbers[rows[order]]
    is_first = np.append(True, held[1:] != held[:-1])[: len(held)]
    firsts = rows[order[is_first]][np.cumsum(is_first) - 1]
    return firsts[~is_first], rows[order[~is_first]]
