"""`ingest.source: datasets` reads what the library `datasets` saves and loads."""

import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_helpers import CAPTIONS, PICTURES, run_ingest, run_source, write_files
from PIL import Image

from distillery.data.ingest import raw
from distillery.data.ingest.readers import read_source

COLUMNS = {"ingest.datasets.image_column": "picture", "ingest.datasets.caption_column": "words"}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, no cache outside of the test."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def make_dataset(**more):
    images = [{"bytes": data, "path": None} for data in PICTURES]
    table = {"picture": images, "words": CAPTIONS, "punsafe": [0.25] * 6, **more}
    return datasets.Dataset.from_dict(table).cast_column("picture", datasets.Image())


def save_arrow(folder):
    datasets.DatasetDict({"train": make_dataset(), "test": make_dataset()}).save_to_disk(folder)


def save_parquet(folder):
    folder.mkdir()
    make_dataset().to_parquet(folder / "train-00000-of-00001.parquet")


def save_file(path):
    make_dataset().to_parquet(path)


def save_image_folder(folder):
    rows = [f"{i}.jpg,{text},0.25" for i, text in enumerate(CAPTIONS)]
    table = "\n".join(["file_name,words,punsafe", *rows]).encode()
    files = {f"train/{i}.jpg": data for i, data in enumerate(PICTURES)}
    write_files(folder, files | {"train/metadata.csv": table})


@pytest.mark.parametrize(
    ("save", "name", "column"),
    [
        (save_arrow, "saved", "picture"),
        (save_parquet, "folder", "picture"),
        (save_file, "a.parquet", "picture"),
        (save_image_folder, "images", "image"),
    ],
)
def test_saved_data_sets_are_read(save, name, column, tmp_path, capsys):
    save(tmp_path / name)
    columns = COLUMNS | {"ingest.datasets.image_column": column}
    assert run_ingest(tmp_path, capsys, "datasets", tmp_path / name, **columns).captions == CAPTIONS
    samples = list(read_source("webdataset", tmp_path / "raw"))
    assert [sample.image for sample in samples] == PICTURES
    assert samples[0].metadata["punsafe"] == 0.25


def test_pixels_become_png_and_class_labels_text(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 70, 80, 3), np.uint8)
    features = {
        "picture": datasets.Array3D((70, 80, 3), "uint8"),
        "words": datasets.ClassLabel(names=["a red kite", "a blue kite"]),
    }
    data = datasets.Dataset.from_dict(
        {"picture": list(pixels), "words": [1, 0]}, features=datasets.Features(features)
    )
    data.save_to_disk(tmp_path / "saved")
    curated = run_source(tmp_path, capsys, "datasets", tmp_path / "saved", **COLUMNS)
    assert curated.captions == ["a blue kite", "a red kite"]
    decoded = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in curated.kept]
    assert (np.stack(decoded) == pixels).all()


def test_rows_without_image_or_caption_are_counted(tmp_path, capsys):
    data = datasets.Dataset.from_dict(
        {"picture": [{"bytes": PICTURES[0], "path": None}, None, {"bytes": PICTURES[2]}],
         "words": [CAPTIONS[0], CAPTIONS[1], None]},
        features=datasets.Features(picture=datasets.Image(), words=datasets.Value("string")),
    )  # fmt: skip
    data.save_to_disk(tmp_path / "saved")
    curated = run_source(tmp_path, capsys, "datasets", tmp_path / "saved", **COLUMNS)
    assert (curated.captions, curated.num_input) == ([CAPTIONS[0]], 3)
    assert {reason for reason, _ in curated.refused} == {"unreadable", "caption_empty"}


def test_a_path_out_of_the_data_set_is_not_followed(tmp_path, capsys):
    (tmp_path / "secret.jpg").write_bytes(PICTURES[0])
    row = {"bytes": None, "path": str(tmp_path / "secret.jpg")}
    (tmp_path / "in").mkdir()
    table = pa.Table.from_pylist([{"picture": row, "words": CAPTIONS[0]}])
    pq.write_table(table, tmp_path / "in/a.parquet")
    ingested = run_ingest(tmp_path, capsys, "datasets", tmp_path / "in", **COLUMNS)
    assert ingested.refused == (("status", "no image bytes in the row"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no column image in split train, which has picture, words, punsafe; correct ingest.d"),
        ({**COLUMNS, "ingest.datasets.caption_column": "text"}, "no column text in split train"),
        ({**COLUMNS, "ingest.datasets.split": "val"}, "no split val, it has train, test"),
    ],
)
def test_what_is_not_there_is_named(changes, message, tmp_path, capsys):
    save_arrow(tmp_path / "saved")
    assert message in run_ingest(tmp_path, capsys, "datasets", tmp_path / "saved", **changes).error


@pytest.mark.parametrize("path", ["someone/kites", "/not/a/folder/here"])
def test_what_cannot_be_reached_is_one_line(path, tmp_path, capsys):
    error = run_ingest(tmp_path, capsys, "datasets", path).error
    assert error.startswith(f"ingest: {path}: not ")
    assert "hub" in error


def test_a_local_file_is_not_looked_for_on_the_hub(tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(b"PK")
    error = run_ingest(tmp_path, capsys, "datasets", tmp_path / "a.zip").error
    assert "a.zip: no file of .parquet, .csv" in error
    pq.write_table(pa.table({"picture": [b""], "words": [""]}).slice(0, 0), tmp_path / "a.parquet")
    error = run_ingest(tmp_path, capsys, "datasets", tmp_path / "a.parquet", **COLUMNS).error
    assert "a.parquet: holds no rows" in error


def test_finished_shards_are_taken_over(tmp_path, capsys, monkeypatch):
    save_arrow(tmp_path / "saved")
    original, written = raw._write_shard, []

    def write(tar, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        original(tar, *rest)
        written.append(tar.stem)

    changes = COLUMNS | {"ingest.shard_size_samples": 2}
    with monkeypatch.context() as patch:
        patch.setattr(raw, "_write_shard", write)
        with pytest.raises(AssertionError):  # exit code 130
            run_ingest_at(tmp_path, capsys, changes)
    written.clear()
    monkeypatch.setattr(raw, "_write_shard", lambda *a: (original(*a), written.append(a[0].stem)))
    assert run_ingest_at(tmp_path, capsys, changes).captions == CAPTIONS
    assert written == ["00002"]


def run_ingest_at(tmp_path, capsys, changes):
    return run_ingest(tmp_path, capsys, "datasets", tmp_path / "saved", **changes)


@pytest.mark.parametrize("name", ["images", "images/train/metadata.csv"])
def test_rows_that_a_quote_swallows_are_an_error(tmp_path, capsys, name):
    save_image_folder(tmp_path / "images")
    (tmp_path / "images/a.csv").mkdir()  # a folder is no table
    table = tmp_path / "images/train/metadata.csv"
    table.write_text('file_name,words\n0.jpg,"two\nlines, x"\n1.jpg,"red\n2.jpg,"blue"\n')
    shown = run_ingest(tmp_path, capsys, "datasets", tmp_path / name, **COLUMNS)
    assert "metadata.csv:4: a quote that opens here swallows line 5" in shown.error


def test_pictures_without_a_row_are_told(tmp_path, capsys):
    save_image_folder(tmp_path / "images")
    columns = {**COLUMNS, "ingest.datasets.image_column": "image"}
    told = []
    for more in ([], ["train/odd.png"]):
        write_files(tmp_path / "images", dict.fromkeys(more, PICTURES[0]))
        assert not run_ingest(tmp_path, capsys, "datasets", tmp_path / "images", **columns).error
        told.append(capsys.readouterr().err)
    assert "have no row" not in told[0]
    num = len(PICTURES) + 1
    assert f"1 of {num} pictures have no row in its table and are left out" in told[1]
