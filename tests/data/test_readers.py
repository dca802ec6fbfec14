import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_helpers import write_folder

from distillery.core.errors import DistilleryError
from distillery.data.ingest.raw import write_raw_shards
from distillery.data.ingest.readers import read_source
from distillery.data.ingest.sample import (
    RawSample,
    find_caption,
    find_metadata,
    normalise_caption,
)


def make_shard(folder, num_samples=5):
    samples = [
        RawSample(str(i), "test", bytes([i]) * (700 + i), "jpg", f"caption {i}", {"punsafe": 0.5})
        for i in range(num_samples)
    ]
    write_raw_shards(samples, folder, 100)
    return folder / "00000.tar"


def read(source, path):
    return list(read_source(source, path))


def test_raw_shards_round_trip(tmp_path):
    make_shard(tmp_path / "raw", 3)
    samples = read("webdataset", tmp_path / "raw")
    assert [s.caption for s in samples] == ["caption 0", "caption 1", "caption 2"]
    assert [s.image for s in samples] == [bytes([i]) * (700 + i) for i in range(3)]
    assert [s.key for s in samples] == ["000000000", "000000001", "000000002"]
    assert samples[0].metadata["punsafe"] == 0.5


def test_tar_without_parquet_and_stats_is_read(tmp_path):
    tar = make_shard(tmp_path / "raw")
    tar.with_suffix(".parquet").unlink()
    tar.with_name("00000_stats.json").unlink()
    samples = read("webdataset", tar)
    assert len(samples) == 5
    assert samples[4].metadata["punsafe"] == 0.5


def test_raw_shards_are_deterministic(tmp_path):
    first, second = make_shard(tmp_path / "a"), make_shard(tmp_path / "b")
    for name in ("00000.tar", "00000.parquet", "00000_stats.json"):
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


# The archive is cut inside a member, between two members (a multiple of 512 bytes), and between
# members with an end-of-archive mark put back, as a tool that repairs archives would.
@pytest.mark.parametrize("case", ["inside", "between", "repaired"])
@pytest.mark.parametrize("with_parquet", [True, False])
def test_tar_cut_short_is_an_error_that_names_it(tmp_path, case, with_parquet):
    tar = make_shard(tmp_path / "raw")
    samples = read("webdataset", tar)
    data = tar.read_bytes()
    boundary = data.index(f"{samples[3].key}.jpg".encode())
    kept = {
        "inside": data[: boundary - 100],
        "between": data[:boundary],
        "repaired": data[:boundary] + bytes(1024),
    }[case]
    tar.write_bytes(kept)
    if not with_parquet:
        tar.with_suffix(".parquet").unlink()
    with pytest.raises(DistilleryError, match=r"00000\.tar: (cut short|holds 3 samples)"):
        read("webdataset", tar)


def test_rows_that_were_never_downloaded_are_reported(tmp_path):
    tar = make_shard(tmp_path / "raw")
    table = tar.with_suffix(".parquet")
    rows = pq.read_table(table).to_pylist()
    rows.append({**rows[0], "key": "000000009", "status": "failed_to_download"})
    pq.write_table(pa.Table.from_pylist(rows), table)
    last = read("webdataset", tar)[-1]
    assert (last.image, last.status) == (None, "failed_to_download")


@pytest.mark.parametrize("source", ["webdataset", "parquet", "folder"])
def test_empty_and_missing_paths_are_errors_that_name_them(tmp_path, source):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(DistilleryError, match=path.name):
            read(source, path)


@pytest.mark.parametrize("column", ["text", "caption", "TEXT"])
@pytest.mark.parametrize("nested", [True, False])
def test_parquet_columns(tmp_path, column, nested):
    image = {"bytes": b"abc", "path": "x/7.png"} if nested else b"abc"
    rows = [{"image": image, column: " two\twords\n", "AESTHETIC_SCORE": 6.5}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    (sample,) = read("parquet", tmp_path)
    assert sample.image == b"abc"
    assert sample.caption == "two words"
    assert sample.metadata == {"aesthetic": 6.5}


def test_parquet_without_image_or_caption_says_what_it_has(tmp_path):
    pq.write_table(pa.table({"url": ["u"], "text": ["t"]}), tmp_path / "a.parquet")
    with pytest.raises(DistilleryError, match="no image column among url, text; download"):
        read("parquet", tmp_path)
    pq.write_table(pa.table({"image": [b"1"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DistilleryError, match="no caption column among image, label"):
        read("parquet", tmp_path)


def test_damaged_parquet_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"image": [b"1" * 500], "text": ["t"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DistilleryError, match=r"data\.parquet: not readable"):
        read("parquet", tmp_path)


def test_folder_with_sidecars(tmp_path):
    folder = write_folder(tmp_path / "images", {"b.png": (b"2", "second"), "a.JPG": (b"1", None)})
    assert [(s.key, s.image, s.caption) for s in read("folder", folder)] == [
        ("a.JPG", b"1", ""),
        ("b.png", b"2", "second"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_folder_with_metadata(tmp_path, kind):
    folder = write_folder(tmp_path / "images", {"a.png": (b"1", None), "b.png": (b"2", "not used")})
    rows = [{"file_name": "b.png", "text": "with, comma"}, {"file_name": "c.png", "text": "gone"}]
    if kind == "csv":
        text = 'file_name,text\nb.png,"with, comma"\nc.png,gone\n'
    else:
        text = "\n".join(map(json.dumps, rows))
    (folder / f"metadata.{kind}").write_text(text)
    found, missing = read("folder", folder)
    assert (found.image, found.caption) == (b"2", "with, comma")
    assert (missing.image, missing.status) == (None, "file not found")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "name,text\na.png,x\n", r"metadata\.csv:1: needs the columns"),
        ("metadata.csv", "file_name,text\na.png,x,y\n", r"metadata\.csv:2: not the columns"),
        ("metadata.csv", "file_name,text\n", r"metadata\.csv: no rows"),
        ("metadata.csv", "file_name,text\n../a.png,x\n", "outside of the folder"),
        ("metadata.jsonl", '{"file_name": "a.png"\n', r"metadata\.jsonl:1: not valid JSON"),
        ("metadata.jsonl", "7\n", r"metadata\.jsonl:1: needs the columns"),
    ],
)
def test_bad_metadata_is_an_error_that_names_the_line(tmp_path, name, text, message):
    folder = write_folder(tmp_path / "images", {"a.png": (b"1", None)})
    (folder / name).write_text(text)
    with pytest.raises(DistilleryError, match=message):
        read("folder", folder)


def test_captions_become_one_line():
    assert normalise_caption("a\tb\r\n c\x00d\u2028e ") == "a b c d e"
    assert normalise_caption(None) == ""
    assert normalise_caption(float("nan")) == ""
    assert len(normalise_caption("long " * 2000)) == 9999


def test_columns_in_any_spelling():
    row = {"URL": " http://x/y ", "TEXT": "t", "SIMILARITY": "0.3", "punsafe": float("nan")}
    assert find_caption(row) == "t"
    assert find_metadata(row) == {"url": "http://x/y", "similarity": 0.3}


def test_photos_are_read(photos, tmp_path):
    shutil.copy(photos / "00000.tar", tmp_path)
    assert len(read("webdataset", tmp_path)) == len(read("webdataset", photos)) == 158
