"""Interrupted runs of `ingest` go on after their last finished shard, whatever the source."""

import os

import pytest
from data_helpers import make_params, write_folder

from distillery.core import artifacts
from distillery.core.run import Run
from distillery.data.ingest import raw
from distillery.data.ingest.resume import ShardResume
from distillery.stages.ingest import ingest

NUM_SAMPLES, SHARD_SIZE = 20, 6
SOURCES = ("scenes", "folder")


def settings(source, tmp_path):
    images = {f"{i:02d}.png": (b"%d" % i * 99, f"caption {i}") for i in range(NUM_SAMPLES)}
    path = write_folder(tmp_path / "images", images) if source == "folder" else None
    return {
        "ingest.source": source,
        "ingest.path": path and str(path),
        "ingest.shard_size_samples": SHARD_SIZE,
        "ingest.scenes.num_scenes": NUM_SAMPLES,
        "ingest.scenes.defects": {"exact_duplicate": 0.1},
    }


def count_shards(monkeypatch, break_at=None):
    """Names of the shards that are written from now on; the run breaks off at one of them."""
    written, original = [], raw._write_shard

    def write(*arguments):
        if len(written) == break_at:
            raise KeyboardInterrupt
        original(*arguments)
        written.append(arguments[0])

    monkeypatch.setattr(raw, "_write_shard", write)
    return written


def interrupt(params, out, monkeypatch, num_shards=2):
    with monkeypatch.context() as patch:
        count_shards(patch, break_at=num_shards)
        with pytest.raises(KeyboardInterrupt):
            ingest(params, raw=out)
    assert not out.exists()


@pytest.mark.parametrize("source", SOURCES)
def test_finished_shards_are_taken_over(source, tmp_path, monkeypatch):
    changes = settings(source, tmp_path)
    params = make_params(tmp_path / "work", changes)
    interrupt(params, tmp_path / "raw", monkeypatch)
    written = count_shards(monkeypatch)
    ingest(params, raw=tmp_path / "raw")
    assert len(written) == 2
    ingest(make_params(tmp_path / "fresh", changes), raw=tmp_path / "uninterrupted")
    resumed = artifacts.hash_files(tmp_path / "raw")
    assert resumed == artifacts.hash_files(tmp_path / "uninterrupted")


def test_changed_files_start_afresh(tmp_path, monkeypatch):
    params = make_params(tmp_path / "work", settings("folder", tmp_path))
    interrupt(params, tmp_path / "raw", monkeypatch)
    (tmp_path / "images/00.txt").write_text("another caption")
    written = count_shards(monkeypatch)
    ingest(params, raw=tmp_path / "raw")
    assert len(written) == 4


def test_an_interrupted_forced_run_is_resumed_and_takes_nothing_older(tmp_path, monkeypatch):
    params = make_params(tmp_path / "work", settings("folder", tmp_path))
    ingest(params, raw=tmp_path / "first")
    interrupt(params, tmp_path / "raw", monkeypatch)
    written = count_shards(monkeypatch)
    ingest(params, raw=tmp_path / "raw")
    assert len(written) == 2


@pytest.fixture
def kept(tmp_path):
    """(run, tar): the shard's three files are recorded as finished, and gone from their places."""
    run = Run("ingest", "f" * 64, tmp_path / "work")
    tar = tmp_path / "raw/00000.tar"
    tar.parent.mkdir()
    for name in ("00000.tar", "00000.parquet", "00000_stats.json"):
        (tar.parent / name).write_text(name)
    ShardResume(run).keep(tar)
    for file in tar.parent.iterdir():
        file.unlink()
    return run, tar


def test_all_three_files_come_back(kept):
    run, tar = kept
    assert ShardResume(run).take(tar)
    assert {f.name: f.read_text() for f in tar.parent.iterdir()} == {
        name: name for name in ("00000.tar", "00000.parquet", "00000_stats.json")
    }


@pytest.mark.parametrize("name", ["00000.tar", "00000.parquet", "00000_stats.json"])
@pytest.mark.parametrize("harm", [os.unlink, lambda path: path.write_text("cut")])
def test_a_shard_with_a_missing_or_damaged_file_is_made_again(kept, name, harm):
    run, tar = kept
    (stored,) = (run.work / "finished").rglob(name)
    harm(stored)
    assert not ShardResume(run).take(tar)
    assert list(tar.parent.iterdir()) == []


def test_a_dropped_shard_is_made_again(kept):
    run, tar = kept
    ShardResume(run).drop(tar)
    assert not ShardResume(run).take(tar)


def test_what_nothing_will_take_frees_its_room(kept, tmp_path):
    run, _ = kept
    (tmp_path / "source.csv").write_text("other input")
    ShardResume(run, tmp_path / "source.csv")
    assert list((run.work / "finished").iterdir()) == []
