"""Peak memory of the data stages by the number of rows.

Writes curated parts and a list of URLs of that many synthetic rows, by the project's own writers:
one tiny JPEG, random hashes and sketches, every hundredth row a copy of another; where they are
asked for, also a folder, a tar and a parquet file of as many small pictures. Then runs what a stage
does, without downloads, in a fresh process each, and prints its peak resident memory and processor
time. The sets of rows stay in FOLDER and are taken again.

Usage: python benchmarks/data_memory.py FOLDER [--num_rows 10000 100000] [--stages NAME ...]
       [--out FILE]
"""

import argparse
import functools
import io
import itertools
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from column_filters import SETTINGS, write_list
from dedupe import random_sketches

from distillery.core.artifacts import write_json
from distillery.core.shards import image_type, open_table_shard, shard_name

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


def pictures(num_rows: int) -> Iterator[tuple[str, bytes, str]]:
    """(name, JPEG, caption): a noise of 64 px, told apart by a comment, so that all are kept."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()
    for number in range(num_rows):
        comment = f"\xff\xfe\0\x0e{number:012d}".encode("latin-1")
        yield f"{number:08d}", jpeg[:2] + comment + jpeg[2:], f"a kite of the number {number}"


def write_folder(folder: Path, num_rows: int) -> None:
    for name, jpeg, caption in pictures(num_rows):
        below = folder / name[:5]
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{name}.jpg").write_bytes(jpeg)
        (below / f"{name}.txt").write_text(caption)


def write_table(folder: Path, num_rows: int) -> None:
    """The pictures of `write_folder`, listed in one metadata.csv."""
    folder.mkdir()
    (folder / "pictures").symlink_to("../folder")
    with (folder / "metadata.csv").open("w") as file:
        file.write("file_name,text\n")
        for name, _, caption in pictures(num_rows):
            file.write(f"pictures/{name[:5]}/{name}.jpg,{caption}\n")


def write_tar(path: Path, num_rows: int) -> None:
    """All in one tar."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, jpeg, caption in pictures(num_rows):
            for suffix, data in (("jpg", jpeg), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_parquet(path: Path, num_rows: int) -> None:
    schema = pa.schema([("image", image_type()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        rows = pictures(num_rows)
        while block := list(itertools.islice(rows, SHARD_ROWS)):
            images = [{"bytes": jpeg, "path": f"{name}.jpg"} for name, jpeg, _ in block]
            texts = [caption for *_, caption in block]
            writer.write_table(pa.table({"image": images, "text": texts}, schema))


SOURCES = {
    "folder": write_folder, "table": write_table, "tar": write_tar, "parquet": write_parquet
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


def rewrite(source: str, path: Path, out: Path) -> None:
    """What `ingest` does of pictures, its list of finished shards included."""
    from distillery.core.run import Run
    from distillery.data.ingest.raw import write_raw_shards
    from distillery.data.ingest.readers import read_source
    from distillery.data.ingest.resume import ShardResume

    resume = ShardResume(Run("ingest", "0", out / "work", out / "work"), path)
    write_raw_shards(read_source(source, path), out, SHARD_ROWS, resume=resume)
    shutil.rmtree(out / "work")


@stage
def ingest_folder(folder: Path, out: Path) -> None:
    """A folder of pictures with texts beside them."""
    rewrite("folder", folder / "folder", out)


@stage
def ingest_table(folder: Path, out: Path) -> None:
    """A folder of pictures with a metadata.csv."""
    rewrite("folder", folder / "table", out)


@stage
def ingest_tar(folder: Path, out: Path) -> None:
    """One tar of pictures."""
    rewrite("webdataset", folder / "tar", out)


@stage
def ingest_parquet(folder: Path, out: Path) -> None:
    """One parquet file of pictures."""
    rewrite("parquet", folder / "parquet", out)


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
    from distillery.data.images import Inspector

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
