"""Whatever a file claims, reading it takes at most 10 s of a processor and 1 GiB."""

import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, PICTURES, header, write_files, write_params, write_tar

from distillery.data.ingest.readers import read_source
from distillery.data.ingest.readers.datasets import read_datasets
from project import ROOT

MEMBERS = {"0.jpg": PICTURES[0], "0.txt": CAPTIONS[0].encode()}
# A process of its own, because memory is measured as the most that it ever had; no torch in it.
# VmHWM, not getrusage, whose figure begins with that of the process that started this one.
SCRIPT = """
import json, re, sys, time
from pathlib import Path
from distillery.stages.ingest import ingest
for params, raw in json.load(sys.stdin):
    started, code = time.process_time(), 0
    try:
        ingest.main(["--params", params, "--raw", raw])
    except SystemExit as end:
        code = end.code
    kib = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    print(json.dumps([code, time.process_time() - started, kib * 1024]))
"""


def sparse_tar(path, head, size):
    """A tar that begins with a header and a member, and goes on as zeros that take no room."""
    write_tar(path, MEMBERS)
    data = path.read_bytes()
    path.write_bytes(head + data if head else data)
    os.truncate(path, size)
    return path


def make_all(root):
    """{name: (source, path, exit code)} of files of each kind."""
    gib = 2**30
    deep, digits = b"[" * 100_000, b'{"punsafe": ' + b"9" * 5000 + b"}"
    listed = write_files(root / "list", {"a.jsonl": b"\n".join((deep, digits, b'{"url": "x"}'))})
    texts = pa.array([CAPTIONS[0].encode(), b"caf\xe9"] * 500).view(pa.string())
    picture = {"bytes": PICTURES[0], "path": "a.jpg"}
    pq.write_table(pa.table({"image": [picture] * 1000, "text": texts}), root / "a.parquet")
    long_name = header("x", 3 * gib, tarfile.GNUTYPE_LONGNAME)
    return {
        "member of 200 GB": ("webdataset", sparse_tar(
            root / "b.tar", header("x.jpg", 200 * gib), 201 * gib), 0),
        "zeros behind": ("webdataset", sparse_tar(root / "c.tar", b"", 200 * gib), 0),
        "name of 3 GB": ("webdataset", sparse_tar(root / "d.tar", long_name, 4 * gib), 2),
        "deep": ("webdataset", write_tar(root / "e.tar", MEMBERS | {"0.json": deep}), 0),
        "digits": ("webdataset", write_tar(root / "f.tar", MEMBERS | {"0.json": digits}), 0),
        "text of 2 GB": ("webdataset", sparse_tar(
            root / "g.tar", header("1.txt", 2 * gib), 3 * gib), 0),
        "list": ("urls", listed, 2),
        "no UTF-8": ("parquet", root / "a.parquet", 0),
    }  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("bounded")
    files = make_all(root)
    jobs = []
    for number, (source, path, _) in enumerate(files.values()):
        work = root / f"work{number}"
        params = write_params(work, {"ingest.source": source, "ingest.path": str(path)})
        jobs.append([str(params), str(root / f"raw{number}")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(jobs), capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, cwd=ROOT, check=True,
    )  # fmt: skip
    results = map(json.loads, done.stdout.splitlines())
    return {
        name: (*result, file[2])
        for (name, file), result in zip(files.items(), results, strict=True)
    }


def test_time_and_memory_are_bounded(measured):
    for name, (code, seconds, peak_bytes, wanted) in measured.items():
        assert code == wanted, name
        assert seconds < 10, name
        assert peak_bytes < 2**30, name


def read_by_datasets(path):
    return read_datasets(str(path), image_column="image", caption_column="text", split="train")


def read_as_parquet(path):
    return read_source("parquet", path)


@pytest.mark.parametrize(
    ("read", "group_rows"), [(read_as_parquet, 3000), (read_as_parquet, 32), (read_by_datasets, 32)]
)
def test_a_parquet_file_is_never_in_memory_as_a_whole(read, group_rows, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "a.parquet"
    images = [{"bytes": rng.bytes(2**13), "path": f"{i}.jpg"} for i in range(3000)]
    table = pa.table({"image": images, "text": ["a kite"] * 3000})
    pq.write_table(table, path, row_group_size=group_rows, write_batch_size=16)
    del table
    before, most = pa.total_allocated_bytes(), 0
    for _ in read(path):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < path.stat().st_size / 2  # Arrow's threads run some row groups ahead
