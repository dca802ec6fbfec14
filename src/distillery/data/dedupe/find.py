"""Resolves duplicates over all parts.

In: the curated rows. Out: which rows stay, in which cluster, and which go and why. Rows are
duplicates when their bytes or their URLs are equal, or when they show the same picture (`near`).
Connected rows are one cluster, of which the best copy stays; its mirrored copies are counted apart,
and stay or go as asked. The result does not depend on the order of rows, shards or parts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillery.core.shards import iter_table_shard
from distillery.data.dedupe.clusters import Clusters
from distillery.data.dedupe.known import Known
from distillery.data.dedupe.near import Views, mirrored_pairs, near_duplicates

DUPLICATE_BYTES, DUPLICATE_URL, NEAR_DUPLICATE, MIRRORED = (
    "duplicate_bytes",
    "duplicate_url",
    "near_duplicate",
    "mirrored",
)
_COLUMNS = ("key", "url", "sha256", "phash", "num_bytes", "width", "height")


@dataclass(frozen=True)
class Row:
    """What of a curated row decides about duplicates."""

    key: str
    part: int
    url: str | None
    sha256: str
    phash: str
    width_px: int
    height_px: int
    num_bytes: int

    def rank(self) -> tuple:
        """Sort key, best copy first: most pixels, least compressed, then the hash of its bytes."""
        return (-self.width_px * self.height_px, -self.num_bytes, self.sha256, self.key)


@dataclass(frozen=True)
class Duplicate:
    """A row that goes, why, and the key of the copy that stays."""

    row: Row
    reason: str
    duplicate_of: str


@dataclass(frozen=True)
class Found:
    """Rows that stay, rows that go, and {key: key of the better copy} of mirrored rows that stay.

    `clusters` names the cluster of each row that stays by the sha256 of its best copy.
    """

    kept: list[Row]
    gone: list[Duplicate]
    mirrored: dict[str, str]
    clusters: dict[str, str]


def read_rows(folders: Mapping[int, Path]) -> list[Row]:
    """Rows of all parts ({part: folder}), best copies first."""
    rows = []
    for part, folder in folders.items():
        for shard in sorted(folder.glob("[0-9]*.parquet")):
            for row in iter_table_shard(shard, _COLUMNS):
                size = {"width_px": row.pop("width"), "height_px": row.pop("height")}
                rows.append(Row(**row, **size, part=part))
    return sorted(rows, key=Row.rank)


def find_duplicates(
    rows: Sequence[Row],
    views: Views,
    *,
    max_hamming: int,
    min_ssim: float,
    drop_mirrored: bool,
    known: Known | None = None,
) -> Found:
    """What stays and what goes of `rows`, which are ranked, best first.

    `known` is what earlier runs have found of the same pictures; this run's findings go there.
    """
    clusters = Clusters(len(rows))
    reasons: dict[int, str] = {}
    for reason, names in (
        (DUPLICATE_BYTES, [row.sha256 for row in rows]),
        (DUPLICATE_URL, [row.url for row in rows]),
    ):
        for i, j in _equal_pairs(names, set(reasons)):
            reasons[j] = reason
            clusters.join(i, j)
    unique = [i for i in range(len(rows)) if i not in reasons]
    chosen = [rows[i] for i in unique]
    for i, j in near_duplicates(chosen, views, max_hamming, min_ssim, known):
        clusters.join(unique[i], unique[j])
    roots = clusters.roots()
    best = [i for i in unique if roots[i] == i]
    families = Clusters(len(rows))  # of pictures and their mirror images
    for i, j in mirrored_pairs([rows[i] for i in best], views, max_hamming, min_ssim, known):
        families.join(best[i], best[j])
    return _found(rows, roots.tolist(), families, reasons, drop_mirrored)


def _found(
    rows: Sequence[Row],
    roots: Sequence[int],
    families: Clusters,
    reasons: Mapping[int, str],
    drop_mirrored: bool,
) -> Found:
    found = Found([], [], {}, {})
    for index, row in enumerate(rows):
        best = roots[index]
        first = families.root(best)
        stays = first if drop_mirrored else best
        if best != index:
            reason = reasons.get(index, NEAR_DUPLICATE)
            found.gone.append(Duplicate(row, reason, rows[stays].key))
        elif stays != index:
            found.gone.append(Duplicate(row, MIRRORED, rows[stays].key))
        else:
            found.kept.append(row)
            found.clusters[row.key] = rows[first].sha256
            if first != index:
                found.mirrored[row.key] = rows[first].key
    return found


def _equal_pairs(names: Sequence[str | None], without: set[int]) -> list[tuple[int, int]]:
    """(first, later) for every name that comes again; None never equals None."""
    groups = defaultdict(list)
    for index, name in enumerate(names):
        if name and index not in without:
            groups[name].append(index)
    return [(group[0], later) for group in groups.values() for later in group[1:]]
