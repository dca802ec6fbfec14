"""Files that the user may not read are one line, or one failed row."""

import ctypes
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, PICTURES, run_ingest, run_source, write_files, write_tar

from distillery.core.errors import DistilleryError
from distillery.data.conditions.own import open_own
from distillery.params import load_params
from distillery.stages.curate import curate
from one_line import run_command

_CAPABILITIES_3 = 0x20080522  # linux/capability.h: version, then effective, permitted, inheritable
_READ_ANYTHING = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def as_user():
    """This thread may read what the rights of a file let its owner read, also when it is root."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, held = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, held) == 0
    fewer = (ctypes.c_uint32 * 6)(*held)
    fewer[0] &= ~_READ_ANYTHING
    assert libc.capset(head, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(head, held) == 0


def forbid(path):
    path.chmod(0)
    return path


FILES = {"0.jpg": PICTURES[0], "0.txt": CAPTIONS[0].encode(),
         "1.jpg": PICTURES[1], "1.txt": CAPTIONS[1].encode()}  # fmt: skip
TABLE = b"file_name,text\n0.jpg,a red kite\n1.jpg,a green kite\n"


@pytest.mark.parametrize("name", ["1.jpg", "1.txt"])
def test_a_picture_or_text_that_may_not_be_read_costs_its_row(name, tmp_path, capsys):
    forbid(write_files(tmp_path / "in", FILES) / name)
    with as_user():
        curated = run_source(tmp_path / "run", capsys, "folder", tmp_path / "in")
    assert curated.captions == CAPTIONS[:1]
    assert "not readable: Permission denied" in curated.refused[0][1]


@pytest.mark.parametrize(
    ("source", "name"),
    [("folder", "metadata.csv"), ("folder", "metadata.jsonl"), ("folder", "below"),
     ("webdataset", "a.tar"), ("parquet", "a.parquet"), ("datasets", "a.parquet"),
     ("urls", "a.csv"), ("urls", "a.jsonl"), ("urls", "a.parquet")],
)  # fmt: skip
def test_a_file_that_may_not_be_read_is_named(source, name, tmp_path, capsys):
    folder = write_files(tmp_path / "in", FILES)
    if name == "below":
        write_files(folder / name, FILES)
    elif name.endswith(".tar"):
        write_tar(folder / name, FILES)
    elif name.endswith(".parquet"):
        pq.write_table(pa.table({"image": PICTURES, "text": CAPTIONS}), folder / name)
    else:
        (folder / name).write_bytes(TABLE)
    forbid(folder / name)
    (tmp_path / "run").mkdir()
    path = folder / name if source == "datasets" else folder
    with as_user():
        error = run_ingest(tmp_path / "run", capsys, source, path).error
    assert name in error
    assert "ermission denied" in error


def test_raw_shards_that_may_not_be_read_are_named(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    run_ingest(tmp_path / "run", capsys, "folder", write_files(tmp_path / "in", FILES))
    forbid(tmp_path / "run/raw/00000.tar")
    raw, curated = tmp_path / "run/raw", tmp_path / "run/curated"
    arguments = ["--params", tmp_path / "run/work.yaml", "--part", 0, "--raw", raw]
    with as_user():
        error = run_command(curate, [*arguments, "--curated", curated], capsys)
    assert "00000.tar: Permission denied; make it readable and writable" in error


def test_folders_of_maps_that_may_not_be_read_are_named(tmp_path):
    maps = write_files(tmp_path / "maps", FILES)
    forbid(write_files(maps / "below", FILES))
    with as_user(), pytest.raises(DistilleryError, match="below: Permission denied; make it read"):
        open_own({"depth": {"from": f"folder {maps}"}})


def test_params_that_may_not_be_read_are_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\n")
    forbid(path)
    with as_user(), pytest.raises(DistilleryError, match=r"params\.yaml: Permission denied"):
        load_params(path)
