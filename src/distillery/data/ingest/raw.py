"""Writes raw shards in img2dataset's layout: `00000.tar`, `00000.parquet`, `00000_stats.json`.

In: `RawSample`s, or rows that become some. Out: shards of a fixed number of rows, the same bytes
for the same samples (no times, owners or durations in them), also when those that an interrupted
run finished are taken over. Images are copied as they are. A row without image bytes is in the
parquet file only, with its status, so that the funnel counts it.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.core.shards import shard_name
from distillery.data.ingest.resume import shard_files
from distillery.data.ingest.sample import (
    IMAGE_SUFFIXES,
    SEGMENTATION_SUFFIX,
    SUCCESS,
    RawSample,
    picture_format,
    shown_name,
)

T = TypeVar("T")
_TAR_FORMAT = tarfile.USTAR_FORMAT
RAW_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("similarity", pa.float64()),
        ("punsafe", pa.float64()),
        ("pwatermark", pa.float64()),
        ("aesthetic", pa.float64()),
        ("planted", pa.string()),
        ("planted_of", pa.string()),
        ("sha256", pa.string()),
        ("source", pa.string()),
        ("name", pa.string()),
    ]
)


class Resume(Protocol):
    """What `resume.ShardResume` offers."""

    def take(self, tar: Path) -> bool:
        """Put a finished shard in place, if there is one."""

    def keep(self, tar: Path) -> None:
        """Record a shard as finished."""


def write_raw_shards(
    rows: Iterable[T],
    folder: Path,
    shard_size_samples: int,
    *,
    load: Callable[[Iterator[T]], Iterator[RawSample]] = iter,
    keep_keys: bool = False,
    resume: Resume | None = None,
    progress: Callable[[int], object] = lambda num_samples: None,
) -> int:
    """Write all samples to `folder`; return their number.

    `load` turns rows into as many samples, in order; it never sees the rows of a shard that
    `resume` takes over. Keys are new, `<shard, 5 digits><row, 4 or more digits>`, as img2dataset
    numbers them, unless the samples' own are unique and to be kept; the old name stays in the
    column `source`. `progress(n)` is called as n more samples are in place.

    Raises DistilleryError where there are no samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_digits = max(4, len(str(shard_size_samples - 1)))
    num_samples = 0

    def count(num: int) -> None:
        nonlocal num_samples
        num_samples += num
        progress(num)

    places: deque[tuple[Path, int]] = deque()  # of the rows that `load` has been given
    unfinished = _unfinished(rows, folder, shard_size_samples, resume, places, count)
    placed = ((*places.popleft(), sample) for sample in load(unfinished))
    for tar, group in itertools.groupby(placed, key=lambda place: place[0]):
        keyed = (
            (sample.key if keep_keys else f"{tar.stem}{row:0{num_digits}d}", sample)
            for _, row, sample in group
        )
        _write_shard(tar, keyed, count)
        if resume is not None:
            resume.keep(tar)
    if num_samples == 0:
        raise DistilleryError("the source holds no samples; check ingest.path and ingest.source")
    return num_samples


def _unfinished(
    rows: Iterable[T],
    folder: Path,
    shard_size_samples: int,
    resume: Resume | None,
    places: deque[tuple[Path, int]],
    count: Callable[[int], None],
) -> Iterator[T]:
    """Rows of the shards to write; their shard and number in it go to `places`."""
    iterator = iter(rows)
    for index in itertools.count():
        if (first := next(iterator, None)) is None:
            return
        shard = itertools.chain([first], itertools.islice(iterator, shard_size_samples - 1))
        tar = folder / shard_name(index, "tar")
        if resume is not None and resume.take(tar):
            count(sum(1 for _ in shard))
            continue
        for number, row in enumerate(shard):
            places.append((tar, number))
            yield row


def _write_shard(
    tar: Path, keyed: Iterable[tuple[str, RawSample]], count: Callable[[int], None]
) -> None:
    rows: list[dict[str, Any]] = []
    with publish(tar) as partial, tarfile.open(partial, "w", format=_TAR_FORMAT) as archive:
        for key, sample in keyed:
            rows.append(_row(key, sample))
            if sample.image is not None:
                _add_sample(archive, rows[-1], sample)
            count(1)
    _, parquet, stats = shard_files(tar)
    pq.write_table(pa.Table.from_pylist(rows, RAW_SCHEMA), parquet, write_page_checksum=True)
    statuses = Counter(row["status"] for row in rows)
    write_json(
        stats,
        {"count": len(rows), "successes": statuses[SUCCESS], "status_dict": dict(statuses)},
    )


def _row(key: str, sample: RawSample) -> dict[str, Any]:
    row = {name: sample.metadata.get(name) for name in RAW_SCHEMA.names}
    return row | {
        "key": key,
        "status": sample.status,
        "caption": sample.caption,
        "sha256": hashlib.sha256(sample.image).hexdigest() if sample.image is not None else None,
        "source": shown_name(f"{sample.source}:{sample.key}"),
        "name": None if sample.name is None else shown_name(sample.name),
    }


def _suffix(sample: RawSample) -> str:
    """The sample's own where it is an image's, right or wrong, else what the bytes announce."""
    if sample.suffix in IMAGE_SUFFIXES:
        return sample.suffix
    return picture_format(sample.image[:16]) or "jpg"


def _add_sample(archive: tarfile.TarFile, row: dict[str, Any], sample: RawSample) -> None:
    metadata = json.dumps(row, sort_keys=True, ensure_ascii=False)
    members = {
        _suffix(sample): sample.image,
        "txt": row["caption"].encode(),
        "json": metadata.encode(),
    }
    if sample.segmentation is not None:
        members[SEGMENTATION_SUFFIX] = sample.segmentation
    for column, data in sample.maps.items():
        members[f"{column}.{picture_format(data[:16]) or 'png'}"] = data
    for suffix, data in members.items():
        member = tarfile.TarInfo(f"{row['key']}.{suffix}")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
