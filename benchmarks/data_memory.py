"""Peak memory of the data stages by the number of rows.

Runs what a stage does to the rows and files of `data_rows`, without downloads, in a fresh process
each, and prints its peak resident memory and processor time. The sets of rows stay in FOLDER and
are taken again.

Usage: python benchmarks/data_memory.py FOLDER [--num_rows 10000 100000] [--stages NAME ...]
       [--out FILE]
"""

import argparse
import functools
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from column_filters import SETTINGS, write_list
from data_rows import SHARD_ROWS, SOURCES, write_curated
from results import keep

from distillery.core.artifacts import write_json

STAGES: dict[str, Callable[[Path, Path], object]] = {}


def stage(function: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
    STAGES[function.__name__] = function
    return function


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


def ingest_pictures(source: str, rows: str, folder: Path, out: Path) -> None:
    """From a set of rows to raw shards, the list of finished ones included."""
    from distillery.core.run import Run
    from distillery.data.ingest.raw import write_raw_shards
    from distillery.data.ingest.readers import read_source
    from distillery.data.ingest.readers.datasets import read_datasets
    from distillery.data.ingest.resume import ShardResume

    path = folder / rows
    resume = ShardResume(Run("ingest", "0", out / "work", out / "work"), path)
    columns = {"image_column": "image", "caption_column": "text", "split": "train"}
    is_plain = source != "datasets"
    samples = read_source(source, path) if is_plain else read_datasets(str(path), **columns)
    write_raw_shards(samples, out, SHARD_ROWS, resume=resume)
    shutil.rmtree(out / "work")


STAGES |= {
    f"ingest_{rows}": functools.partial(ingest_pictures, source, rows)
    for rows, source in {
        "folder": "folder",  # with texts beside the pictures
        "table": "folder",  # with a metadata.csv
        "tar": "webdataset",
        "parquet": "parquet",
        "group": "parquet",  # a single row group, as pandas writes up to a million rows
        "datasets": "datasets",  # the parquet file
        "saved": "datasets",  # Arrow files of save_to_disk, which are mapped
    }.items()
}


@stage
def curate(folder: Path, out: Path) -> None:
    """Raw shards of rows without images, and the counts of a part."""
    curate_all(folder / "ingest", out)
    finish(folder / "curated/0")


@stage
def curate_pictures(folder: Path, out: Path) -> None:
    """Raw shards of pictures, each decoded, to a part."""
    curate_all(folder / "ingest_parquet", out)
    finish(out)


def curate_all(raw: Path, out: Path) -> None:
    from distillery.data.curation.curate import curate_shard, shard_paths
    from distillery.data.inspector import Inspector

    with Inspector() as inspector:
        for tar in sorted(raw.glob("*.tar")):
            curate_shard(tar, shard_paths(out, tar), [], inspector)


def finish(part: Path) -> None:
    from distillery.data.curation.curate import finish_part
    from distillery.data.curation.unreadable import unreadable_lines

    counts = finish_part(part, {})
    print(*unreadable_lines(part, counts["input"]), sep="\n")


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


def status_kib(name: str) -> int:
    """A figure of this process; getrusage would count the parent's memory too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(value)


def watch(most: list[int]) -> None:
    """Note the most that is no page of a mapped file, which the system takes back when it likes."""
    while True:
        most[0] = max(most[0], status_kib("RssAnon"))
        time.sleep(0.05)


def run_child(name: str, folder: Path) -> None:
    out = folder / name
    out.mkdir(exist_ok=True)
    cv2.setNumThreads(1)
    most = [0]
    threading.Thread(target=watch, args=(most,), daemon=True).start()
    STAGES[name](folder, out)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "peak_mib": round(status_kib("VmHWM") / 1024), "own_mib": round(most[0] / 1024),
        "cpu_s": used.ru_utime + used.ru_stime,
    }  # fmt: skip
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


def measure(folder: Path, num_rows: int, stages: list[str]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "list.parquet").is_file():
        write_list(folder / "list.parquet", num_rows)
    if not (folder / "curated/0/counts.json").is_file():
        write_curated(folder / "curated", num_rows)
    needed = {name.removeprefix("ingest_") for name in stages}
    needed |= {"folder"} if "table" in needed else set()
    for name in [name for name in SOURCES if name in needed]:
        if not (folder / name).exists():
            SOURCES[name](folder / name, num_rows)
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
    found = {
        str(num): measure(arguments.folder / str(num), num, arguments.stages)
        for num in arguments.num_rows
    }
    keep(found, arguments.out, ("cv2", "numpy", "pyarrow"))


if __name__ == "__main__":
    main()
