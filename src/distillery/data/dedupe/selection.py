"""Writes the selection: what stays with its split, what goes, and the funnel.

In: the curated parts and what `dedupe` found. Out: `selection.parquet`, `rejected.parquet`,
`mirrored.parquet` (mirror images that stay), `funnel.json`. The funnel adds up: kept + rejected +
failed = input, over all parts. Splits are drawn per cluster, mirror images in it, so no picture is
in two.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core.artifacts import read_json, write_json
from distillery.core.errors import DistilleryError
from distillery.core.shards import write_table_shard
from distillery.data.curation.curate import COUNTS
from distillery.data.dedupe.advice import advice
from distillery.data.dedupe.find import REASONS, Found
from distillery.data.dedupe.rows import Rows
from distillery.data.loader import SELECTION, SPLITS

REJECTED, MIRRORED, FUNNEL = "rejected.parquet", "mirrored.parquet", "funnel.json"
SELECTION_SCHEMA = pa.schema(
    [("key", pa.string()), ("part", pa.int64()), ("cluster", pa.string()), ("split", pa.string())]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("part", pa.int64()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
    ]
)
MIRRORED_SCHEMA = pa.schema([("key", pa.string()), ("mirrors", pa.string())])


def part_folders(curated: Path, parts: Sequence[int]) -> dict[int, Path]:
    """{part: its folder}; a part that has not been curated is an error."""
    folders = {part: curated / str(part) for part in parts}
    for part, folder in folders.items():
        if not (folder / COUNTS).is_file():
            raise DistilleryError(f"{folder}: not found; run curate --part {part} first")
    return folders


def make_funnel(counts: Iterable[Mapping[str, Any]], found: Found) -> dict:
    """Counts of all parts plus duplicates: {"input", "kept", "rejected", "failed"}."""
    by_reason = Counter(found.num_gone())
    rejected, failed, num_input, num_kept = Counter(by_reason), Counter(), 0, -by_reason.total()
    for part in counts:
        num_input += part["input"]
        num_kept += part["kept"]
        rejected.update(part["rejected"])
        failed.update(part["failed"])
    if num_kept + rejected.total() + failed.total() != num_input:
        raise AssertionError("the funnel does not add up")
    return {
        "input": num_input,
        "kept": num_kept,
        "rejected": dict(rejected),
        "failed": dict(failed),
    }


def read_counts(folders: Mapping[int, Path]) -> list[dict[str, Any]]:
    """`counts.json` of every part."""
    return [read_json(folder / COUNTS) for folder in folders.values()]


def require_kept(counts: Iterable[Mapping[str, Any]], curated: Path) -> None:
    """Raise DistilleryError where curation left nothing, naming the largest reasons."""
    counts = list(counts)
    if any(part["kept"] for part in counts):
        return
    reasons = Counter()
    for part in counts:
        reasons.update(part["rejected"])
        reasons.update(part["failed"])
    largest = ", ".join(f"{name} {number}" for name, number in reasons.most_common(3))
    num_input = sum(part["input"] for part in counts)
    raise DistilleryError(
        f"{curated}: none of {num_input} images is left; most went by {largest or 'no filter'}; "
        f"{advice(reasons)}"
    )


def write_selection(
    folder: Path, found: Found, *, seed: int, val_share: float, test_share: float
) -> dict[str, int]:
    """Write the three tables, sorted by key; return the number of rows per split.

    A cluster is named by the sha256 of its best copy, so its split follows the picture and not the
    key. Raises DistilleryError where a split with a share gets no row.
    """
    codes = _draw_splits(found, seed, val_share, test_share)
    sizes = dict(zip(SPLITS, np.bincount(codes, minlength=len(SPLITS)).tolist(), strict=True))
    shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
    empty = [name for name in SPLITS if shares[name] > 0 and not sizes[name]]
    if empty:
        raise DistilleryError(
            f"selection: split {empty[0]} gets none of {len(found.kept)} images; give more images "
            "or change deduplicate.split"
        )
    write_table_shard(folder / SELECTION, _kept(found, codes), SELECTION_SCHEMA)
    write_table_shard(folder / REJECTED, _gone(found), REJECTED_SCHEMA)
    write_table_shard(folder / MIRRORED, _mirrored(found), MIRRORED_SCHEMA)
    return sizes


def _draw_splits(found: Found, seed: int, val_share: float, test_share: float) -> np.ndarray:
    """int8 (K,): places in `SPLITS` of what stays."""
    clusters = map(found.rows.sha256, found.clusters.tolist())
    splits = (draw_split(cluster, seed, val_share, test_share) for cluster in clusters)
    return np.fromiter(map(SPLITS.index, splits), np.int8, len(found.kept))


def _kept(found: Found, codes: np.ndarray) -> Iterator[dict[str, Any]]:
    for i, key in _by_key(found.rows, found.kept):
        yield {
            "key": key,
            "part": int(found.rows.parts[found.kept[i]]),
            "cluster": found.rows.sha256(found.clusters[i]),
            "split": SPLITS[codes[i]],
        }


def _gone(found: Found) -> Iterator[dict[str, Any]]:
    for i, key in _by_key(found.rows, found.gone):
        yield {
            "key": key,
            "part": int(found.rows.parts[found.gone[i]]),
            "reason": REASONS[found.reasons[i]],
            "duplicate_of": found.rows.keys[found.duplicate_of[i]].as_py(),
        }


def _mirrored(found: Found) -> Iterator[dict[str, Any]]:
    for i, key in _by_key(found.rows, found.mirrored[:, 0]):
        yield {"key": key, "mirrors": found.rows.keys[found.mirrored[i, 1]].as_py()}


def _by_key(rows: Rows, places: np.ndarray) -> Iterator[tuple[int, str]]:
    """(number in `places`, key of that row), sorted by key."""
    keys = rows.keys.take(pa.array(places, pa.int64()))
    for i in pc.array_sort_indices(keys).to_numpy():
        yield i, keys[i].as_py()


def draw_split(cluster: str, seed: int, val_share: float, test_share: float) -> str:
    """`train`, `val` or `test`, from a hash of the seed and the cluster's name."""
    digest = hashlib.sha256(f"{seed}:{cluster}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def write_funnel(folder: Path, funnel: Mapping[str, Any]) -> None:
    """Write `funnel.json`."""
    write_json(folder / FUNNEL, funnel)
