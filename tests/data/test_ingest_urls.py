"""`ingest` from a list of URLs, by the stage, against a server on this machine."""

import json
import sys

import pyarrow.parquet as pq
import pytest
from data_helpers import change, make_params
from web_helpers import answer, serve_to_ingest

from distillery.core import artifacts
from distillery.core.errors import DistilleryError
from distillery.core.shards import read_table
from distillery.data.ingest.download import Downloader
from distillery.data.ingest.raw import _write_shard
from distillery.data.ingest.readers import read_source
from distillery.stages.curate import curate
from distillery.stages.ingest import ingest

NUM_ROWS, SHARD_SIZE = 20, 6


@pytest.fixture
def web(monkeypatch, scene_images):
    with serve_to_ingest(monkeypatch, scene_images[:NUM_ROWS]) as running:
        yield running


def write_list(path, urls):
    rows = [{"URL": url, "TEXT": f"a large red circle {i}"} for i, url in enumerate(urls)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def params(web, tmp_path):
    path = write_list(tmp_path / "list.jsonl", [web.url(f"/{i}.png") for i in range(NUM_ROWS)])
    return make_params(
        tmp_path / "work",
        {
            "data.parts": [0],
            "ingest.source": "urls",
            "ingest.path": str(path),
            "ingest.shard_size_samples": SHARD_SIZE,
            "ingest.download.num_threads": 2,
        },
    )


def interrupt_after(monkeypatch, num_shards):
    """The writing of shards breaks off when so many are written."""
    written = []

    def interrupted(tar, *rest):
        if len(written) == num_shards:
            raise KeyboardInterrupt
        _write_shard(tar, *rest)
        written.append(tar.name)

    monkeypatch.setattr("distillery.data.ingest.raw._write_shard", interrupted)
    return written


def asked(web):
    return sorted(int(path[1:].removesuffix(".png")) for path, _ in web.seen)


def statuses(raw):
    rows = [
        row for path in sorted(raw.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    return [row["status"] for row in rows]


def test_a_list_becomes_shards_that_curation_reads(web, params, tmp_path):
    web.pages["/3.png"] = answer(b"", 404)
    web.pages["/4.png"] = answer(b"<html>gone</html>")
    ingest(params, raw=tmp_path / "raw")
    assert asked(web) == list(range(NUM_ROWS))
    samples = list(read_source("webdataset", tmp_path / "raw"))
    assert len(samples) == NUM_ROWS
    assert [s.key for s in samples if s.image is None] == ["000000003"]
    assert samples[0].metadata["url"] == web.url("/0.png")
    assert statuses(tmp_path / "raw").count("success") == NUM_ROWS - 1
    stats = json.loads((tmp_path / "raw/00000_stats.json").read_text())
    assert stats["status_dict"] == {"success": 5, "failed_to_download: http 404": 1}
    curate(params, part=0, raw=tmp_path / "raw", curated=tmp_path / "curated/0")
    counts = json.loads((tmp_path / "curated/0/counts.json").read_text())
    assert counts["failed"] == {"not_downloaded": 1, "unreadable": 1}
    (row,) = [
        r for r in read_table(tmp_path / "curated/0/rejected") if r["reason"] == "not_downloaded"
    ]
    assert row["detail"] == "failed_to_download: http 404"


def test_max_samples_bounds_the_requests(web, params, tmp_path):
    ingest(change(params, "ingest.max_samples", 7), raw=tmp_path / "raw")
    assert asked(web) == list(range(7))


def test_the_stage_refuses_this_machine(web, params, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["distillery.stages.ingest"], "Downloader", Downloader)
    urls = [web.url("/0.png", host) for host in ("127.0.0.1", "[::1]", "0x7f.0.0.1")]
    params = change(
        params, "ingest.path", str(write_list(tmp_path / "l.jsonl", [*urls, "file:///etc/passwd"]))
    )
    with pytest.raises(DistilleryError, match=r"l\.jsonl: 4 of 4 downloads failed \(refused add"):
        ingest(params, raw=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    assert web.seen == []
    assert "shard 00000: none of 4 images was downloaded" in capsys.readouterr().err


def test_too_many_failures_are_an_error_with_counts(web, params, tmp_path):
    for i in range(4, NUM_ROWS):
        web.pages[f"/{i}.png"] = answer(b"", 404 if i < 18 else 403)
    message = (
        r"16 of 20 downloads failed \(http 404: 14, http 403: 2\), "
        r"ingest\.download\.max_failed_share is 0\.7"
    )
    with pytest.raises(DistilleryError, match=message):
        ingest(params, raw=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_failed_shards_are_tried_again_and_good_ones_are_not(web, params, tmp_path):
    pages = dict(web.pages)
    for i in range(4, NUM_ROWS):
        web.pages[f"/{i}.png"] = answer(b"", 404)
    with pytest.raises(DistilleryError):
        ingest(params, raw=tmp_path / "raw")
    web.pages.update(pages)
    web.seen.clear()
    # Another number of threads is no reason to start anew.
    limits = params.ingest.download.model_copy(update={"num_threads": 1, "max_failed_share": 0.2})
    ingest(change(params, "ingest.download", limits), raw=tmp_path / "raw")
    assert asked(web) == list(range(SHARD_SIZE, NUM_ROWS))
    assert statuses(tmp_path / "raw").count("success") == NUM_ROWS - 2


def test_a_shard_without_images_is_not_finished(web, params, tmp_path, monkeypatch):
    for i in range(SHARD_SIZE):
        web.pages[f"/{i}.png"] = answer(b"", 404)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        interrupt_after(patch, 2)
        ingest(params, raw=tmp_path / "raw")
    web.seen.clear()
    ingest(params, raw=tmp_path / "raw")
    assert set(range(SHARD_SIZE)) <= set(asked(web))
    assert not set(range(SHARD_SIZE, 2 * SHARD_SIZE)) & set(asked(web))
    samples = list(read_source("webdataset", tmp_path / "raw"))
    assert [s.image is None for s in samples] == [True] * SHARD_SIZE + [False] * 14


@pytest.mark.parametrize("num_shards", [1, 3])
def test_no_url_of_a_finished_shard_is_requested_again(
    web, params, tmp_path, monkeypatch, num_shards
):
    web.pages["/1.png"] = answer(b"", 404)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        interrupt_after(patch, num_shards)
        ingest(params, raw=tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    web.seen.clear()
    ingest(params, raw=tmp_path / "raw")
    assert asked(web) == list(range(num_shards * SHARD_SIZE, NUM_ROWS))
    fresh = change(params, "paths.work", str(tmp_path / "fresh"))
    ingest(fresh, raw=tmp_path / "uninterrupted")
    resumed = artifacts.hash_files(tmp_path / "raw")
    assert resumed == artifacts.hash_files(tmp_path / "uninterrupted")


def test_a_completed_run_that_is_forced_downloads_anew(web, params, tmp_path):
    for _ in range(2):
        web.seen.clear()
        ingest(params, raw=tmp_path / "raw")
        assert asked(web) == list(range(NUM_ROWS))
