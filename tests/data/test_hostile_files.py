"""Damaged and hostile files: one line or one failed row, quickly, and nothing lost in silence."""

import io
import json
import tarfile
import time

import pyarrow.parquet as pq
import pytest
from command_helpers import (
    CAPTIONS,
    PICTURES,
    header,
    run_ingest,
    run_source,
    write_files,
    write_params,
    write_tar,
)
from PIL import Image

from distillery.stages.curate import curate
from distillery.stages.ingest import ingest
from one_line import run_command

NAMES = [f"{i}.{suffix}" for i in range(6) for suffix in ("jpg", "txt")]
MEMBERS = dict(zip(NAMES, [x for p, c in zip(PICTURES, CAPTIONS, strict=True)
                           for x in (p, c.encode())], strict=True))  # fmt: skip
BLOCK = 512


def place_of(data, name):
    return data.index(name.encode() + b"\0")


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def break_header(data):
    return flip(data, place_of(data, "3.jpg"))


def put_behind(data):
    return data + data


def claim_size(size):
    def change(data):
        start = place_of(data, "3.jpg")
        return data[:start] + header("3.jpg", size) + data[start + BLOCK :]

    return change


def claim_name(kind):
    def change(data):
        start = place_of(data, "3.jpg")
        return data[:start] + header("x", 3 * 2**30, kind) + data[start:]

    return change


def chain_names(data):
    start = place_of(data, "3.jpg")
    link = header("x", 4, tarfile.GNUTYPE_LONGNAME) + b"abc\0".ljust(BLOCK, b"\0")
    return data[:start] + link * 3000 + data[start:]


def number_of_digits(data):
    start = place_of(data, "3.jpg")
    text = b"9" * 5000 + b" path=x\n"
    padded = text.ljust(-(-len(text) // BLOCK) * BLOCK, b"\0")
    return data[:start] + header("p", len(text), tarfile.XHDTYPE) + padded + data[start:]


@pytest.mark.parametrize(
    "change",
    [
        break_header, put_behind, claim_size(200 * 10**9), claim_size(10 * 10**12),
        claim_name(tarfile.GNUTYPE_LONGNAME), claim_name(tarfile.XHDTYPE), chain_names,
        number_of_digits,
    ],
)  # fmt: skip
def test_a_damaged_tar_is_one_quick_line_that_names_it(change, tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", MEMBERS)
    tar.write_bytes(change(tar.read_bytes()))
    started = time.process_time()
    error = run_ingest(tmp_path, capsys, "webdataset", tar).error
    assert "a.tar: after " in error or "a.tar: cut short" in error
    assert time.process_time() - started < 10
    assert not (tmp_path / "raw").exists()


def test_a_packed_tar_is_called_so(tmp_path, capsys):
    write_files(tmp_path / "in", MEMBERS)
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(tmp_path / "in", "in")
    error = run_ingest(tmp_path, capsys, "webdataset", tmp_path / "a.tar").error
    assert "packed with gzip; unpack it" in error


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"<!DOCTYPE html><html>404", "web page"), (b"version https://git-lfs", "pointer of Git LFS")],
)
def test_what_is_no_tar_is_called_so(data, kind, tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(data + b" " * 1024)
    error = run_ingest(tmp_path, capsys, "webdataset", tmp_path / "a.tar").error
    assert f"a.tar: {kind}, no tar" in error


def test_a_member_twice_is_named(tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", MEMBERS)
    with tarfile.open(tar, "a") as archive:
        info = tarfile.TarInfo("2.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    error = run_ingest(tmp_path, capsys, "webdataset", tar).error
    assert "two members are named 2.jpg" in error


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"punsafe": ' + b"9" * 5000 + b"}",
        b'{"text": "caf\xe9"}',
        b'{"punsafe": 1',
    ],
    ids=["deep", "digits", "latin-1", "cut"],
)
def test_a_json_member_that_cannot_be_read_costs_one_row(data, tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", MEMBERS | {"3.json": data})
    ingested = run_ingest(tmp_path, capsys, "webdataset", tar)
    assert (len(ingested.captions), ingested.num_input) == (5, 6)
    assert "json member unreadable" in ingested.refused[0][1]


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"file_name": ' + b"9" * 5000 + b"}", b"\xff"])
def test_a_metadata_line_that_cannot_be_read_is_named(line, tmp_path, capsys):
    first = json.dumps({"file_name": "0.jpg", "text": CAPTIONS[0]}).encode()
    files = {"0.jpg": PICTURES[0], "metadata.jsonl": first + b"\n" + line}
    error = run_ingest(tmp_path, capsys, "folder", write_files(tmp_path / "in", files)).error
    assert "metadata.jsonl" in error


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.8])
def test_a_flipped_bit_in_a_raw_shard_is_named(suffix, place, tmp_path, capsys):
    tar = write_tar(tmp_path / "a.tar", MEMBERS)
    run_ingest(tmp_path, capsys, "webdataset", tar)
    shard = tmp_path / f"raw/00000{suffix}"
    data = shard.read_bytes()
    shard.write_bytes(flip(data, int(place * len(data))))
    assert f"00000{suffix}: missing, or not the bytes" in run_curate(tmp_path, capsys)
    assert not (tmp_path / "curated").exists()


def test_a_flipped_bit_is_found_without_a_manifest_too(tmp_path, capsys):
    run_ingest(tmp_path, capsys, "webdataset", write_tar(tmp_path / "a.tar", MEMBERS))
    (tmp_path / "raw/manifest.json").unlink()
    shard = tmp_path / "raw/00000.tar"
    data = shard.read_bytes()
    shard.write_bytes(flip(data, data.index(PICTURES[2]) + len(PICTURES[2]) // 2))
    assert "00000.tar: image 000000002 is not the bytes" in run_curate(tmp_path, capsys)


def run_curate(tmp_path, capsys):
    params, raw, curated = tmp_path / "work.yaml", tmp_path / "raw", tmp_path / "curated"
    arguments = ["--params", params, "--part", 0, "--raw", raw, "--curated", curated]
    return run_command(curate, arguments, capsys)


def test_large_pictures_are_written_in_groups_and_large_rejects_dropped(tmp_path, capsys):
    files = {}
    for index, side in enumerate((3000, 3000, 3000, 2400)):
        buffer = io.BytesIO()
        Image.effect_noise((side, side), 50 + index).convert("RGB").save(buffer, "BMP")
        files |= {f"{index}.bmp": buffer.getvalue(), f"{index}.txt": b"a grey noisy field"}
    folder = write_files(tmp_path / "in", files | {"4.jpg": b"x" * 2**25})
    curated = run_source(tmp_path, capsys, "folder", folder)
    assert len(curated.captions) == 4
    shard = pq.ParquetFile(tmp_path / "curated/00000.parquet")
    assert shard.num_row_groups == 2
    (rejected,) = pq.read_table(tmp_path / "curated/rejected/00000.parquet").to_pylist()
    assert rejected["image"]["bytes"] is None


def test_the_source_is_not_touched_by_a_failed_run(tmp_path, capsys):
    params = write_params(tmp_path / "work", {"ingest.source": "folder", "ingest.path": "absent"})
    error = run_command(ingest, ["--params", params, "--raw", tmp_path / "raw"], capsys)
    assert error == "ingest: absent: not found; set ingest.path to your folder data"
