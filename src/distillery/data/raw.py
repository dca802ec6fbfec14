"""Writes raw shards in img2dataset's layout: `00000.tar`, `00000.parquet`, `00000_stats.json`.

In: `RawSample`s. Out: shards of a fixed number of rows, the same bytes for the same samples (no
times, owners or durations in them). Images are copied as they are. A row without image bytes is
in the parquet file only, with its status, so that the funnel counts it.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.artifacts import publish, write_json
from distillery.data.raw_sample import SEGMENTATION_SUFFIX, SUCCESS, RawSample
from distillery.errors import DistilleryError
from distillery.shards import shard_name

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
        ("sha256", pa.string()),
        ("source", pa.string()),
    ]
)


def write_raw_shards(
    samples: Iterable[RawSample],
    folder: Path,
    shard_size_samples: int,
    *,
    on_shard: Callable[[int], object] = lambda num_samples: None,
) -> int:
    """Write all samples to `folder`; return their number.

    Keys are new, `<shard, 5 digits><row, 4 or more digits>`, as img2dataset numbers them; the
    old name stays in the column `source`. `on_shard` is called with each shard's size.

    Raises DistilleryError where there are no samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    iterator = iter(samples)
    num_digits = max(4, len(str(shard_size_samples - 1)))
    num_samples = 0
    for index in itertools.count():
        if (first := next(iterator, None)) is None:
            break
        rest = itertools.islice(iterator, shard_size_samples - 1)
        keyed = (
            (f"{index:05d}{row:0{num_digits}d}", sample)
            for row, sample in enumerate(itertools.chain([first], rest))
        )
        num_written = _write_shard(folder, index, keyed)
        num_samples += num_written
        on_shard(num_written)
    if num_samples == 0:
        raise DistilleryError("the source holds no samples; check ingest.path and ingest.source")
    return num_samples


def _write_shard(folder: Path, index: int, keyed: Iterable[tuple[str, RawSample]]) -> int:
    tar = folder / shard_name(index, "tar")
    rows: list[dict[str, Any]] = []
    with publish(tar) as partial, tarfile.open(partial, "w", format=_TAR_FORMAT) as archive:
        for key, sample in keyed:
            rows.append(_row(key, sample))
            if sample.image is not None:
                _add_sample(archive, rows[-1], sample)
    pq.write_table(pa.Table.from_pylist(rows, RAW_SCHEMA), tar.with_suffix(".parquet"))
    statuses = Counter(row["status"] for row in rows)
    write_json(
        tar.with_name(f"{tar.stem}_stats.json"),
        {"count": len(rows), "successes": statuses[SUCCESS], "status_dict": dict(statuses)},
    )
    return len(rows)


def _row(key: str, sample: RawSample) -> dict[str, Any]:
    row = {name: sample.metadata.get(name) for name in RAW_SCHEMA.names}
    return row | {
        "key": key,
        "status": sample.status,
        "caption": sample.caption,
        "sha256": hashlib.sha256(sample.image).hexdigest() if sample.image is not None else None,
        "source": f"{sample.source}:{sample.key}",
    }


def _add_sample(archive: tarfile.TarFile, row: dict[str, Any], sample: RawSample) -> None:
    metadata = json.dumps(row, sort_keys=True, ensure_ascii=False)
    members = {
        sample.suffix or "jpg": sample.image,
        "txt": row["caption"].encode(),
        "json": metadata.encode(),
    }
    if sample.segmentation is not None:
        members[SEGMENTATION_SUFFIX] = sample.segmentation
    for suffix, data in members.items():
        member = tarfile.TarInfo(f"{row['key']}.{suffix}")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
