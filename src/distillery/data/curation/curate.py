"""Curates one part: raw shards in, kept and rejected rows with their reasons out.

In: raw shards and filters. Out, per raw shard: `<i>.parquet` (kept rows with the original image
bytes), `rejected/<i>.parquet` (refused and failed rows with reason and detail), and for the part
`counts.json`. Duplicates are not looked for here: they may lie in another part.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.artifacts import MANIFEST, hash_file, read_manifest, write_json
from distillery.core.errors import DamagedError
from distillery.core.shards import image_type, list_shards, open_table_shard, read_columns
from distillery.data.curation.filters import first_rejection
from distillery.data.curation.filters.base import SCORES, Candidate, Filter
from distillery.data.ingest.readers.tar import read_shard
from distillery.data.ingest.resume import shard_files
from distillery.data.ingest.sample import FAILED_TO_DOWNLOAD, RawSample
from distillery.data.inspector import ImageFacts, Inspector

CURATED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image", image_type()),
        ("caption", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("url", pa.string()),
        ("similarity", pa.float64()),
        ("punsafe", pa.float64()),
        ("pwatermark", pa.float64()),
        ("aesthetic", pa.float64()),
        ("sha256", pa.string()),
        ("md5", pa.string()),
        ("phash", pa.string()),
        ("sketch", pa.binary()),
        ("num_bytes", pa.int64()),
        ("planted", pa.string()),
        ("segmentation", pa.binary()),
        ("name", pa.string()),
        ("maps", pa.list_(pa.struct([("column", pa.string()), ("bytes", pa.binary())]))),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("image", image_type()),
        ("planted", pa.string()),
        ("name", pa.string()),
    ]
)
REJECTED = "rejected"
COUNTS = "counts.json"
# Reasons that are counted as failed: there was nothing to judge.
FAILED = NOT_DOWNLOADED, UNREADABLE = ("not_downloaded", "unreadable")
_MAX_REJECTED_BYTES = 2**24  # larger images are not kept with their reason

# Keeps `datasets.load_dataset(<folder>)` from reading the rejected rows and the manifest.
_DATASET_CARD = """---
configs:
- config_name: default
  data_files: "[0-9]*.parquet"
---
Curated images with captions: `datasets.load_dataset("<this folder>")` reads and decodes them.
"""


@dataclass(frozen=True)
class ShardPaths:
    """Where the rows of one raw shard go."""

    kept: Path
    rejected: Path


def shards_of_part(raw: Path, part: int, num_parts: int) -> list[Path]:
    """The raw shards of one part: every `num_parts`-th, so that parts are of like size; none where
    there are fewer shards than parts, which only say how work is divided."""
    return list_shards(raw, "tar")[part::num_parts]


def shard_paths(curated: Path, tar: Path) -> ShardPaths:
    """Output files of a raw shard; they carry its number."""
    return ShardPaths(curated / f"{tar.stem}.parquet", curated / REJECTED / f"{tar.stem}.parquet")


def curate_shard(
    tar: Path,
    paths: ShardPaths,
    filters: Sequence[Filter],
    inspector: Inspector,
    *,
    on_sample: Callable[[], object] = lambda: None,
) -> None:
    """Judge every row of one raw shard and write both files, also where they have no rows.

    Raises DamagedError where the shard is cut short, not a tar, or not the recorded bytes.
    """
    require_undamaged(tar)
    with (
        open_table_shard(paths.kept, CURATED_SCHEMA) as keep,
        open_table_shard(paths.rejected, REJECTED_SCHEMA) as reject,
    ):
        for sample in read_shard(tar):
            row, refusal = judge(sample, filters, inspector)
            if refusal is None:
                keep(row)
            else:
                reject(_rejected_row(sample, *refusal))
            on_sample()


def require_undamaged(tar: Path) -> None:
    """Compare a raw shard's files with what `ingest` has recorded; a user's own have no record."""
    if not (tar.parent / MANIFEST).is_file():
        return
    recorded = read_manifest(tar.parent)["files"]
    for file in shard_files(tar):
        if file.name in recorded and (not file.is_file() or hash_file(file) != recorded[file.name]):
            raise DamagedError(
                f"{file}: missing, or not the bytes that ingest wrote; run ingest again"
            )


def judge(
    sample: RawSample, filters: Iterable[Filter], inspector: Inspector
) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    """(curated row, None) for a row to keep, else (None, (reason, detail))."""
    if sample.image is None:
        downloaded = not sample.status.startswith(FAILED_TO_DOWNLOAD)
        return None, (UNREADABLE if downloaded else NOT_DOWNLOADED, sample.status)
    digest = _require_recorded(sample)
    facts = inspector.inspect(sample.image)
    if not isinstance(facts, ImageFacts):
        return None, (UNREADABLE, facts)
    if problem := _segmentation_problem(sample, facts, inspector):
        return None, (UNREADABLE, problem)
    row = _curated_row(sample, facts, digest)
    shared = {name: row[name] for name in ("caption", "url", "sha256", "md5", *SCORES)}
    candidate = Candidate(facts.width_px, facts.height_px, **shared)
    refusal = first_rejection(candidate, filters)
    return (row, None) if refusal is None else (None, refusal)


def _require_recorded(sample: RawSample) -> str:
    """sha256 of the image's bytes; DamagedError where the shard's table has another."""
    digest = hashlib.sha256(sample.image).hexdigest()
    if sample.sha256 not in (None, digest):
        raise DamagedError(
            f"{sample.source}: image {sample.key} is not the bytes that its .parquet has the "
            "sha256 of; run ingest again"
        )
    return digest


def _segmentation_problem(sample: RawSample, image: ImageFacts, inspector: Inspector) -> str | None:
    """Why the source's own segmentation can't be used, if it has one."""
    if sample.segmentation is None:
        return None
    labels = inspector.inspect(sample.segmentation)
    if not isinstance(labels, ImageFacts):
        return f"segmentation: {labels}"
    if (labels.width_px, labels.height_px) != (image.width_px, image.height_px):
        return f"segmentation of {labels.width_px} x {labels.height_px} px"
    return None


def _curated_row(sample: RawSample, facts: ImageFacts, digest: str) -> dict[str, Any]:
    row = {name: sample.metadata.get(name) for name in ("url", "planted", *SCORES)}
    return row | {
        "key": sample.key,
        "image": {"bytes": sample.image, "path": f"{sample.key}.{facts.format.lower()}"},
        "caption": sample.caption,
        "width": facts.width_px,
        "height": facts.height_px,
        "sha256": digest,
        "md5": hashlib.md5(sample.image, usedforsecurity=False).hexdigest(),
        "phash": facts.phash,
        "sketch": facts.sketch,
        "num_bytes": len(sample.image),
        "segmentation": sample.segmentation,
        "name": sample.name,
        "maps": [{"column": column, "bytes": data} for column, data in sample.maps.items()],
    }


def _rejected_row(sample: RawSample, reason: str, detail: str) -> dict[str, Any]:
    too_large = sample.image is not None and len(sample.image) > _MAX_REJECTED_BYTES
    return {
        "key": sample.key,
        "reason": reason,
        "detail": detail,
        "url": sample.metadata.get("url"),
        "caption": sample.caption,
        "image": {"bytes": None if too_large else sample.image, "path": None},
        "planted": sample.metadata.get("planted"),
        "name": sample.name,
    }


def finish_part(curated: Path, refused_before: Mapping[str, int]) -> dict[str, Any]:
    """Write `counts.json` and the dataset card of a part from its shards; return the counts.

    `refused_before` are rows by reason that were never downloaded.
    Shards without a kept row are deleted first, because `datasets` can't read an empty one.
    `unscored` counts kept rows that passed a score's filter because they have no such score.
    """
    for path in sorted(curated.glob("[0-9]*.parquet")):
        if pq.read_metadata(path).num_rows == 0:
            path.unlink()
    num_kept, unscored, refused = 0, Counter(dict.fromkeys(SCORES, 0)), Counter(refused_before)
    for scores in read_part_columns(curated, SCORES):
        num_kept += len(scores)
        unscored.update({name: scores[name].null_count for name in SCORES})
    for reasons in read_part_columns(curated / REJECTED, ["reason"]):
        refused.update(reasons["reason"].to_pylist())
    counts = {
        "input": num_kept + refused.total(),
        "kept": num_kept,
        "rejected": {name: n for name, n in refused.items() if name not in FAILED},
        "failed": {name: n for name, n in refused.items() if name in FAILED},
        "unscored": dict(unscored),
    }
    curated.mkdir(exist_ok=True)  # of a part without a shard
    write_json(curated / COUNTS, counts)
    (curated / "README.md").write_text(_DATASET_CARD, encoding="utf-8")
    return counts


def read_part_columns(folder: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of each shard."""
    return (read_columns(path, columns) for path in sorted(folder.glob("[0-9]*.parquet")))
