"""Scenes written as LAION-format shards, with planted and labelled defects.

In: a seed, a number of scenes and a rate per defect. Out: img2dataset's layout, per shard
`00000.tar` (image, `.txt`, `.json`, exact segmentation `.seg.png`), `00000.parquet` and
`00000_stats.json`; the same call writes the same bytes. All score columns (`similarity`,
`punsafe`, `pwatermark`, `aesthetic`) are synthetic: drawn at random, not measured on the image.
It does not check seeds (`scenes.check_scene_seed`) and does not publish atomically.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.core.shards import shard_name
from distillery.data.ingest.raw import Resume
from distillery.data.scenes.defect_kinds import (
    DEFECTS,
    Sample,
    clean_sample,
    encode,
    is_duplicate,
    plant,
)

COLUMNS = pa.schema(
    [
        ("URL", pa.string()),
        ("TEXT", pa.string()),
        ("WIDTH", pa.int32()),
        ("HEIGHT", pa.int32()),
        ("similarity", pa.float64()),
        ("punsafe", pa.float64()),
        ("pwatermark", pa.float64()),
        ("aesthetic", pa.float64()),
        ("hash", pa.int64()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("sha256", pa.string()),
        ("planted", pa.string()),
        ("planted_of", pa.string()),
    ]
)


def write_scene_shards(
    out: Path,
    *,
    num_scenes: int,
    seed: int,
    size_px: int,
    shard_size: int,
    defects: Mapping[str, float],
    progress: Callable[[int], None] | None = None,
    resume: Resume | None = None,
) -> dict[str, int]:
    """Write `num_scenes` records to `out` and return how many carry each defect.

    `defects` maps a name of `DEFECTS` to the share of records that carry it; a record carries one
    at most. A planted duplicate copies an earlier clean record of any shard, and `planted_of`
    names it. Raises `DistilleryError` for an unknown name, or shares outside [0, 1] in sum.
    `progress(n)` is called as n more records are in place; shards that `resume` takes over are not
    drawn.
    """
    labels = _assign(num_scenes, seed, defects)
    originals = [n for n, label in enumerate(labels) if label is None]
    out.mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, num_scenes, shard_size)):
        numbers = range(start, min(start + shard_size, num_scenes))
        tar = out / shard_name(shard, "tar")
        if resume and resume.take(tar):
            if progress:
                progress(len(numbers))
            continue
        samples = []
        for number in numbers:
            samples.append(_sample(number, labels[number], originals, seed, size_px))
            if progress:
                progress(1)
        _write_shard(out, tar.stem, samples)
        if resume:
            resume.keep(tar)
    return {name: labels.count(name) for name in defects}


def _assign(num_scenes: int, seed: int, defects: Mapping[str, float]) -> list[str | None]:
    """The defect of each record; the first two records stay clean as originals."""
    unknown = sorted(set(defects) - set(DEFECTS))
    if unknown:
        raise DistilleryError(
            f"unknown planted defect {unknown[0]!r}: choose from {', '.join(DEFECTS)}"
        )
    total = sum(defects.values())
    if min(defects.values(), default=0) < 0 or total > 1:
        raise DistilleryError(f"planted defects sum to {total:g}: shares must be within 0 and 1")
    labels: list[str | None] = [None] * num_scenes
    order = _uniforms(seed, 1, num_scenes).argsort(kind="stable")
    places = iter(order[order >= 2].tolist())
    for name, share in defects.items():
        for number in _take(places, round(share * num_scenes)):
            labels[number] = name
    return labels


def _take(places, count: int) -> list[int]:
    return [number for number, _ in zip(places, range(count), strict=False)]


def _uniforms(seed: int, stream: int, count: int) -> np.ndarray:
    bits = np.random.Philox(np.random.SeedSequence([seed, 0x5CE9E5, stream]))
    return np.random.Generator(bits).random(count)


def _sample(number: int, label: str | None, originals, seed: int, size_px: int) -> Sample:
    uniforms = _uniforms(seed, 2 + number, 16)
    if label is None:
        return clean_sample(number, seed, size_px, uniforms)
    if not is_duplicate(label):
        return plant(label, clean_sample(number, seed, size_px, uniforms), uniforms)
    earlier = [n for n in originals if n < number]
    chosen = earlier[int(uniforms[15] * len(earlier))]
    original = clean_sample(chosen, seed, size_px, _uniforms(seed, 2 + chosen, 16))
    return plant(label, original, uniforms, number=number)


def _row(sample: Sample) -> dict:
    """A parquet row; `hash` is a function of URL and caption, as LAION's is."""
    digest = hashlib.sha256(f"{sample.url}{sample.caption}".encode()).digest()
    return {
        "URL": sample.url,
        "TEXT": sample.caption,
        "WIDTH": sample.width_px,
        "HEIGHT": sample.height_px,
        **{name: round(value, 6) for name, value in sample.scores.items()},
        "hash": int.from_bytes(digest[:8], "big", signed=True),
        "key": sample.key,
        "status": "success",
        "error_message": None,
        "sha256": hashlib.sha256(sample.data).hexdigest(),
        "planted": sample.planted,
        "planted_of": sample.planted_of,
    }


def _write_shard(out: Path, name: str, samples: list[Sample]) -> None:
    rows = [_row(sample) for sample in samples]
    with tarfile.open(out / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample, row in zip(samples, rows, strict=True):
            record = json.dumps(row, sort_keys=True, ensure_ascii=False)
            _add(tar, f"{sample.key}.{sample.extension}", sample.data)
            _add(tar, f"{sample.key}.txt", sample.caption.encode())
            _add(tar, f"{sample.key}.json", record.encode())
            _add(tar, f"{sample.key}.seg.png", encode(Image.fromarray(sample.class_ids), "png"))
    pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), out / f"{name}.parquet")
    stats = {
        "count": len(rows),
        "successes": len(rows),
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "status_dict": {"success": len(rows)},
    }
    (out / f"{name}_stats.json").write_text(json.dumps(stats, indent=2, sort_keys=True) + "\n")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member whose header holds nothing that varies (mtime, uid, gid and names stay empty)."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
