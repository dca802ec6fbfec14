"""Resolves duplicates over all parts and assigns splits.

In: the curated parts. Out: which rows stay, in which cluster and split, and which go and why. Rows
are duplicates when their bytes or their URLs are equal, or when a perceptual hash proposes and
`dedupe_compare` confirms that they show the same picture. Connected rows are one cluster, of which
the best copy stays. Splits are drawn per cluster, so no picture is in two. The result does not
depend on the order of rows, shards or parts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillery.core.shards import iter_table_shard
from distillery.data.dedupe.candidates import hamming_pairs
from distillery.data.dedupe.clusters import Clusters
from distillery.data.dedupe.compare import (
    SIDE_PX,
    Thumbnails,
    grid_means,
    plausible,
    same_picture,
    thumbnail,
)
from distillery.data.dedupe.phash import to_integers
from distillery.data.images import decode_rgb

DUPLICATE_BYTES, DUPLICATE_URL, NEAR_DUPLICATE = (
    "duplicate_bytes",
    "duplicate_url",
    "near_duplicate",
)
_COLUMNS = ("key", "url", "sha256", "phash", "width", "height")


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


def read_rows(folders: Mapping[int, Path]) -> list[Row]:
    """Rows of all parts ({part: folder}), best copies first."""
    rows = []
    for part, folder in folders.items():
        for shard in sorted(folder.glob("[0-9]*.parquet")):
            for row in iter_table_shard(shard, [*_COLUMNS, "image"]):
                size = {"width_px": row.pop("width"), "height_px": row.pop("height")}
                num_bytes = len(row.pop("image")["bytes"])
                rows.append(Row(**row, **size, part=part, num_bytes=num_bytes))
    return sorted(rows, key=Row.rank)


def find_duplicates(
    rows: Sequence[Row],
    load_thumbnails: Callable[[Sequence[Row]], np.ndarray],
    *,
    max_hamming: int,
    min_ssim: float,
) -> tuple[list[Row], list[Duplicate]]:
    """(rows that stay, rows that go); `rows` are ranked, best first.

    `load_thumbnails` gives uint8 (N, 64, 64, 3) for the rows that have a candidate.
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
    for i, j in near_duplicates(chosen, load_thumbnails, max_hamming, min_ssim):
        clusters.join(unique[i], unique[j])
    kept, gone = [], []
    for index, row in enumerate(rows):
        best = clusters.root(index)
        if best == index:
            kept.append(row)
        else:
            gone.append(Duplicate(row, reasons.get(index, NEAR_DUPLICATE), rows[best].key))
    return kept, gone


def _equal_pairs(names: Sequence[str | None], without: set[int]) -> list[tuple[int, int]]:
    """(first, later) for every name that comes again; None never equals None."""
    groups = defaultdict(list)
    for index, name in enumerate(names):
        if name and index not in without:
            groups[name].append(index)
    return [(group[0], later) for group in groups.values() for later in group[1:]]


def near_duplicates(
    rows: Sequence[Row],
    load_thumbnails: Callable[[Sequence[Row]], np.ndarray],
    max_hamming: int,
    min_ssim: float,
) -> list[tuple[int, int]]:
    """Index pairs of rows that show the same picture: enough to connect all that do.

    The search for candidates runs twice rather than hold all pairs: once to know which images to
    decode, once to compare them.
    """
    hashes = to_integers([row.phash for row in rows])
    proposed = np.zeros(len(rows), dtype=bool)
    for block in hamming_pairs(hashes, max_hamming):
        proposed[block] = True
    if not proposed.any():
        return []
    wanted = np.flatnonzero(proposed)
    chosen = [rows[i] for i in wanted]
    sides = np.array([min(row.width_px, row.height_px) for row in chosen])
    thumbnails = Thumbnails(load_thumbnails(chosen), sides)
    blocks = hamming_pairs(hashes[wanted], max_hamming)
    confirmed = sorted(_confirm(thumbnails, blocks, min_ssim))
    return [(int(wanted[i]), int(wanted[j])) for i, j in confirmed]


def _confirm(
    thumbnails: Thumbnails, blocks: Iterable[np.ndarray], min_ssim: float
) -> Iterator[tuple[int, int]]:
    """The pairs that show one picture; those that other pairs have connected are not compared.

    So a collection of equal pictures costs a comparison a picture, not a pair.
    """
    clusters = Clusters(len(thumbnails.pixels))
    coarse = grid_means(thumbnails.pixels, 4)
    for block in blocks:
        roots = clusters.roots()
        apart = block[roots[block[:, 0]] != roots[block[:, 1]]]
        near = apart[plausible(coarse, apart)]
        for i, j in near[np.lexsort((near[:, 1], near[:, 0]))].tolist():
            if clusters.root(i) != clusters.root(j) and same_picture(thumbnails, i, j, min_ssim):
                clusters.join(i, j)
                yield i, j


def load_thumbnails(
    folders: Mapping[int, Path], scratch: Path
) -> Callable[[Sequence[Row]], np.ndarray]:
    """A loader that decodes rows of the curated folders into a file at `scratch` and maps it.

    12 KiB per image lie on disk, not in memory; the images have passed the guarded decoder. The
    file is written, not mapped, so that a full disk is an error and not a crash.
    """

    def load(rows: Sequence[Row]) -> np.ndarray:
        position = {row.key: index for index, row in enumerate(rows)}
        with scratch.open("wb") as file:
            for key, image in _read_images(folders.values()):
                if (index := position.get(key)) is not None:
                    pixels = thumbnail(decode_rgb(image))
                    file.seek(index * pixels.nbytes)
                    file.write(pixels.tobytes())
        return np.memmap(scratch, np.uint8, mode="r", shape=(len(rows), SIDE_PX, SIDE_PX, 3))

    return load


def _read_images(folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for shard in sorted(folder.glob("[0-9]*.parquet")):
            for row in iter_table_shard(shard, ["key", "image"]):
                yield row["key"], row["image"]["bytes"]


def draw_split(cluster: str, seed: int, val_share: float, test_share: float) -> str:
    """`train`, `val` or `test`, from a hash of the seed and the cluster's name."""
    digest = hashlib.sha256(f"{seed}:{cluster}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"
