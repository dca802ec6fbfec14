"""Peak memory of the data stages by the number of rows.

Writes curated parts and a list of URLs of that many synthetic rows, by the project's own writers:
one tiny JPEG, random hashes and sketches, every hundredth row a copy of another. Then runs what a
stage does, without downloads, in a fresh process each, and prints its peak resident memory and
processor time. The sets of rows stay in FOLDER and are taken again.

Usage: python benchmarks/data_memory.py FOLDER [--num_rows 10000 100000] [--stages NAME ...]
       [--out FILE]
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from column_filters import SETTINGS, write_list
from dedupe import random_sketches

from distillery.core.artifacts import write_json
from distillery.core.shards import open_table_shard, shard_name

SHARD_ROWS = 4096
STAGES: dict[str, Callable[[Path, Path], object]] = {}


def stage(function: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
    STAGES[function.__name__] = function
    return function


def curated_rows(num_rows: int) -> Iterator[dict[str, Any]]:
    """Rows whose hashes and sketches are random, but for copies."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", cv2.resize(pixels, (64, 64)))[1].tobytes()
    for start in range(0, num_rows, SHARD_ROWS):
        num = min(SHARD_ROWS, num_rows - start)
        hashes, sketches = rng.integers(0, 2**64, num, dtype=np.uint64), random_sketches(num, rng)
        for row in range(num):
            source = row - row % 50 if row % 100 == 99 else row
            number = start + row
            yield {
                "key": f"{number:010d}", "image": {"bytes": jpeg, "path": f"{number}.jpg"},
                "caption": f"a caption of some words, number {number}", "width": 64, "height": 64,
                "url": f"https://img.example.org/some/folder/picture-{number}.jpg",
                "similarity": 0.3, "punsafe": 0.1, "pwatermark": 0.1, "aesthetic": 6.0,
                "sha256": f"{number:064x}", "md5": f"{number:032x}",
                "phash": f"{int(hashes[source]):016x}", "sketch": sketches[source].tobytes(),
                "num_bytes": len(jpeg), "planted": None, "segmentation": None,
                "name": str(number), "maps": [],
            }  # fmt: skip


def write_curated(folder: Path, num_rows: int) -> None:
    from distillery.data.curation.curate import CURATED_SCHEMA, finish_part

    rows = curated_rows(num_rows)
    for index in range(-(-num_rows // SHARD_ROWS)):
        with open_table_shard(folder / "0" / shard_name(index, "parquet"), CURATED_SCHEMA) as add:
            for _, row in zip(range(SHARD_ROWS), rows, strict=False):
                add(row)
    finish_part(folder / "0", {})


@stage
def ingest(folder: Path, out: Path) -> None:
    """A list of URLs, filtered by its columns; rows that are left become shards without images."""
    from distillery.data.curation.asked import asked_scores
    from distillery.data.curation.filters import COLUMN_FILTERS, build_filters
    from distillery.data.ingest.raw import write_raw_shards
    from distillery.data.ingest.readers.scores import require_scores
    from distillery.data.ingest.readers.urls import count_rows, list_tables, read_urls
    from distillery.data.ingest.sample import RawSample

    tables = list_tables(folder / "list.parquet")
    require_scores("urls", tables[0], asked_scores({"ingest.download.filters": SETTINGS}))
    count_rows(tables)
    loose = {**SETTINGS, "min_aesthetic": 4.0, "min_similarity": 0.2}  # three in four stay
    rows = read_urls(tables, build_filters(COLUMN_FILTERS, **loose), Counter())
    failed = functools.partial(RawSample, image=None, suffix="", status="failed_to_download: dns")
    write_raw_shards(
        rows, out, SHARD_ROWS,
        load=lambda rows: (
            failed(key=r.key, source=r.source, caption=r.caption, metadata=r.metadata) for r in rows
        ),
    )  # fmt: skip


@stage
def curate(folder: Path, out: Path) -> None:
    """Raw shards of rows without images, and the counts of a part."""
    from distillery.data.curation.curate import curate_shard, finish_part, shard_paths
    from distillery.data.images import Inspector

    with Inspector() as inspector:
        for tar in sorted((folder / "ingest").glob("*.tar")):
            curate_shard(tar, shard_paths(out, tar), [], inspector)
    (out / "README.md").unlink(missing_ok=True)
    finish_part(folder / "curated/0", {})


@stage
def deduplicate(folder: Path, out: Path) -> None:
    """From curated parts to the selection."""
    from distillery.data.dedupe import selection
    from distillery.data.dedupe.find import find_duplicates
    from distillery.data.dedupe.known import Known
    from distillery.data.dedupe.rows import read_rows
    from distillery.data.dedupe.views import CuratedViews

    folders, known = {0: folder / "curated/0"}, Known(out / "known.npz", "key")
    found = find_duplicates(
        read_rows(folders), CuratedViews(folders, out), max_hamming=10, min_ssim=0.9,
        drop_mirrored=False, known=known,
    )  # fmt: skip
    known.write()
    selection.write_selection(out, found, seed=0, val_share=0.05, test_share=0.15)


@stage
def conditions(folder: Path, out: Path) -> None:
    """Canny maps of what was selected."""
    from distillery.data.conditions.annotate import annotate_shard, build_annotators
    from distillery.data.loader import read_selection

    selected = read_selection(folder / "deduplicate").of(0)
    annotators = build_annotators(["canny"], {"canny_low": 100, "canny_high": 200})
    for shard in sorted((folder / "curated/0").glob("*.parquet")):
        annotate_shard(shard, {"canny": out / shard.name}, annotators, selected)


@stage
def records(folder: Path, out: Path) -> None:
    """What the cache and the trainings read."""
    from distillery.data.loader import iter_records

    num = sum(1 for _ in iter_records(folder / "curated", folder / "deduplicate"))
    write_json(out / "records.json", {"num_records": num})


def run_child(name: str, folder: Path) -> None:
    out = folder / name
    out.mkdir(exist_ok=True)
    cv2.setNumThreads(1)
    STAGES[name](folder, out)
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
    (peak_kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"peak_mib": round(int(peak_kib) / 1024), "cpu_s": used.ru_utime + used.ru_stime}
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


def measure(folder: Path, num_rows: int, stages: list[str]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "list.parquet").is_file():
        write_list(folder / "list.parquet", num_rows)
    if not (folder / "curated/0/counts.json").is_file():
        write_curated(folder / "curated", num_rows)
    found = {}
    for name in stages:
        command = [sys.executable, __file__, str(folder), "--child", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(num_rows, name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num_rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--child")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child, arguments.folder)
        return
    found = {"date": time.strftime("%Y-%m-%d")} | {
        str(num): measure(arguments.folder / str(num), num, arguments.stages)
        for num in arguments.num_rows
    }
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
