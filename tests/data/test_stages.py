import json
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from data_helpers import (
    change,
    jpeg,
    make_params,
    run_conditions,
    run_to_selection,
    write_folder,
)

from distillery.core import artifacts
from distillery.core.errors import DistilleryError
from distillery.core.shards import read_table
from distillery.data.conditions.annotate import encode_png
from distillery.data.curation.curate import judge
from distillery.data.images import decode_rgb
from distillery.data.ingest.sample import RawSample
from distillery.data.inspector import Inspector
from distillery.data.loader import iter_records, load_image
from distillery.stages.curate import curate
from distillery.stages.deduplicate import deduplicate
from distillery.stages.ingest import ingest

CAPTION = "a large red circle"
NUM_SCENES = 60


SETTINGS = {
    "ingest.source": "folder",
    "ingest.shard_size_samples": 16,
    "deduplicate.split": {"val": 0.2, "test": 0.3},
}


def mixed_samples(scene_images):
    """60 scenes, 10 recompressed copies, 5 byte copies, and one of each kind of bad sample."""
    scenes = {f"s{i:03d}.png": (encode_png(scene_images[i]), CAPTION) for i in range(NUM_SCENES)}
    near = {f"n{i:03d}.jpg": (jpeg(scene_images[i], 50), CAPTION) for i in range(10)}
    same = {f"x{i:03d}.png": (encode_png(scene_images[20 + i]), CAPTION) for i in range(5)}
    bad = {
        "bad_bytes.jpg": (b"<html>404</html>", CAPTION),
        "bad_cut.png": (encode_png(scene_images[100])[:300], CAPTION),
        "bad_small.png": (encode_png(np.zeros((20, 20, 3), np.uint8)), CAPTION),
        "bad_empty.png": (encode_png(scene_images[101]), " \t\n"),
        "bad_long.png": (encode_png(scene_images[102]), "word " * 2000),
        "bad_spam.png": (encode_png(scene_images[103]), "buy now, free shipping today"),
    }
    return {**scenes, **near, **same, **bad}


@pytest.fixture(scope="module")
def mixed_params(tmp_path_factory, scene_images):
    base = tmp_path_factory.mktemp("mixed")
    folder = write_folder(base / "source", mixed_samples(scene_images))
    return make_params(base / "work", {**SETTINGS, "ingest.path": str(folder)})


@pytest.fixture(scope="module")
def finished(mixed_params, tmp_path_factory):
    """The chain's outputs; tests that damage them take `mixed`, a copy."""
    return run_to_selection(mixed_params, tmp_path_factory.mktemp("chain"))


@pytest.fixture
def mixed(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "mixed"))


def test_funnel_adds_up_and_names_every_reason(finished):
    funnel = json.loads((finished / "selection/funnel.json").read_text())
    assert funnel == {
        "input": 81,
        "kept": NUM_SCENES,
        "failed": {"unreadable": 2},
        "rejected": {
            "resolution": 1,
            "caption_empty": 1,
            "caption_long": 1,
            "caption_spam": 1,
            "duplicate_bytes": 5,
            "near_duplicate": 10,
        },
    }


def test_rejected_rows_are_kept_with_their_reason(finished):
    rows = [row for part in "01" for row in read_table(finished / "curated" / part / "rejected")]
    assert sorted(row["reason"] for row in rows) == sorted(
        ["caption_empty", "caption_long", "caption_spam", "resolution", "unreadable", "unreadable"]
    )
    assert all(row["detail"] and row["image"]["bytes"] for row in rows)


def test_no_key_bytes_or_cluster_is_in_two_splits(finished):
    records = list(iter_records(finished / "curated", finished / "selection"))
    assert len(records) == NUM_SCENES
    assert {record.split for record in records} == {"train", "val", "test"}
    for name in ("key", "cluster", "image_bytes"):
        assert len({getattr(record, name) for record in records}) == len(records)


def test_original_bytes_are_kept(finished, scene_images):
    stored = {r.image_bytes for r in iter_records(finished / "curated", finished / "selection")}
    # Of each picture that also came as JPEG, the copy with more bytes stays.
    for i in range(10, NUM_SCENES):
        assert encode_png(scene_images[i]) in stored


def test_datasets_loads_and_decodes_a_part(finished, tmp_path):
    folder = finished / "curated" / "0"
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "hf"))
    assert loaded.num_rows == json.loads((folder / "counts.json").read_text())["kept"]
    assert loaded[0]["image"].size == (64, 64)
    assert loaded[0]["caption"] == CAPTION


def test_two_runs_give_the_same_bytes(finished, mixed_params, tmp_path):
    again = run_to_selection(mixed_params, tmp_path / "again")
    for name in ("raw", "curated/0", "curated/1", "selection"):
        first, second = artifacts.hash_files(finished / name), artifacts.hash_files(again / name)
        assert first == second


def test_split_and_cluster_do_not_depend_on_names_or_order(finished, tmp_path):
    records = list(iter_records(finished / "curated", finished / "selection"))
    by_bytes = {record.image_bytes: record for record in records}
    renamed = {f"{record.cluster}.png": (record.image_bytes, CAPTION) for record in records}
    folder = write_folder(tmp_path / "renamed", renamed)
    changes = {**SETTINGS, "ingest.path": str(folder), "ingest.shard_size_samples": 7}
    other = run_to_selection(make_params(tmp_path / "work", changes), tmp_path / "other")
    others = list(iter_records(other / "curated", other / "selection"))
    assert len(others) == NUM_SCENES
    assert [r.image_bytes for r in others] != [r.image_bytes for r in records]
    for record in others:
        expected = by_bytes[record.image_bytes]
        assert (record.split, record.cluster) == (expected.split, expected.cluster)


def test_conditions_of_the_selected_keys(mixed, mixed_params):
    run_conditions(mixed_params, mixed)
    selected = pq.read_table(mixed / "selection/selection.parquet").to_pylist()
    for part in (0, 1):
        expected = sorted(row["key"] for row in selected if row["part"] == part)
        for kind in ("canny", "sketch", "segmentation"):
            rows = list(read_table(mixed / "conditions" / str(part) / kind))
            assert [row["key"] for row in rows] == expected
            assert load_image(rows[0]["image"]["bytes"], 64).shape == (64, 64, 3)


def test_curation_resumes_after_an_interruption(mixed_params, tmp_path, monkeypatch):
    mixed_params = change(mixed_params, "paths.work", str(tmp_path / "work"))
    ingest(mixed_params, raw=tmp_path / "raw")
    arguments = {"part": 0, "raw": tmp_path / "raw", "curated": tmp_path / "curated"}
    module = sys.modules["distillery.stages.curate"]
    judged = []
    original = module.curate_shard

    def interrupted(tar, *rest):
        if len(judged) == 2:
            raise KeyboardInterrupt
        judged.append(tar.name)
        original(tar, *rest)

    monkeypatch.setattr(module, "curate_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        curate(mixed_params, **arguments)
    assert not (tmp_path / "curated").exists()
    monkeypatch.setattr(module, "curate_shard", original)
    curate(mixed_params, **arguments)
    resumed = artifacts.hash_files(tmp_path / "curated")
    params = change(mixed_params, "paths.work", str(tmp_path / "fresh"))
    curate(params, **{**arguments, "curated": tmp_path / "uninterrupted"})
    assert resumed == artifacts.hash_files(tmp_path / "uninterrupted")
    assert len(judged) == 2


def test_unusable_labels_cost_one_image_each(scene_images, tmp_path):
    image, labels = encode_png(scene_images[0]), encode_png(scene_images[0][:, :, 0] // 40)
    given = [labels, b"no image", encode_png(np.zeros((9, 9), np.uint8)), None]
    with Inspector() as inspector:
        answers = [
            judge(RawSample("k", "s", image, "png", CAPTION, segmentation=s), [], inspector)[1]
            for s in given
        ]
    assert answers == [
        None,
        ("unreadable", "segmentation: not an image of an accepted format: text"),
        ("unreadable", "segmentation of 9 x 9 px"),
        None,
    ]


def test_nothing_left_is_an_error_that_names_the_filter(mixed_params, tmp_path):
    params = change(mixed_params, "curate.min_side_px", 4096)
    with pytest.raises(DistilleryError, match="none of 81 images is left; most went by resolution"):
        run_to_selection(params, tmp_path)
    assert not (tmp_path / "selection").exists()


def test_an_empty_split_is_an_error(finished, mixed_params, tmp_path):
    split = mixed_params.deduplicate.split.model_copy(update={"val": 0.0001})
    params = change(mixed_params, "deduplicate.split", split)
    with pytest.raises(DistilleryError, match="split val gets none of 60 images"):
        deduplicate(params, curated=finished / "curated", selection=tmp_path / "other")


def test_a_part_without_a_shard_stays_empty(scene_images, tmp_path, capsys):
    scenes = {f"{i}.png": (encode_png(scene_images[i]), CAPTION) for i in range(6)}
    folder = write_folder(tmp_path / "one", scenes)
    settings = {"data.parts": [0, 1, 2], "deduplicate.split": {"val": 0.0, "test": 0.0}}
    changes = {**SETTINGS, **settings, "ingest.path": str(folder)}
    params = make_params(tmp_path / "work", changes)
    root = run_to_selection(params, tmp_path)
    assert "the raw data has fewer shards than data.parts" in capsys.readouterr().err
    run_conditions(params, root)
    counts = [json.loads((root / f"curated/{part}/counts.json").read_text()) for part in "012"]
    assert [part["input"] for part in counts] == [6, 0, 0]
    assert [len(list(read_table(root / f"conditions/{part}/canny"))) for part in "012"] == [6, 0, 0]


def test_flipped_bit_in_a_curated_shard_is_named(mixed):
    shard = sorted((mixed / "curated/0").glob("0*.parquet"))[0]
    data = bytearray(shard.read_bytes())
    places = pq.read_metadata(shard).row_group(0)
    image = next(c for c in map(places.column, range(99)) if c.path_in_schema == "image.bytes")
    data[image.data_page_offset - 200] ^= 4  # in its dictionary; statistics in headers don't count
    shard.write_bytes(data)
    with pytest.raises(DistilleryError, match=shard.name):
        list(iter_records(mixed / "curated", mixed / "selection"))


def test_selection_of_other_data_is_refused(mixed):
    for shard in sorted((mixed / "curated/1").glob("0*.parquet"))[:1]:
        shard.unlink()
    with pytest.raises(DistilleryError, match=r"lacks .* keys of .*run deduplicate again"):
        list(iter_records(mixed / "curated", mixed / "selection"))


@pytest.mark.parametrize("size", [(64, 64), (100, 70), (70, 100), (30, 40)])
def test_load_image_fits_and_crops(size):
    image = np.zeros((*size, 3), np.uint8)
    image[:, size[1] // 2 :] = 200
    loaded = load_image(encode_png(image), 64)
    assert loaded.shape == (64, 64, 3)
    assert loaded[:, :24].max() < 20
    assert loaded[:, 40:].min() > 180


def test_load_image_leaves_an_image_of_the_size_alone(scene_images):
    assert (load_image(encode_png(scene_images[5]), 64) == scene_images[5]).all()


def test_photos_run_to_their_conditions(photos, tmp_path):
    changes = {
        **SETTINGS,
        "ingest.source": "webdataset",
        "ingest.path": str(photos),
        "ingest.max_samples": 12,
        "ingest.shard_size_samples": 6,
    }
    params = make_params(tmp_path / "work", changes)
    root = run_to_selection(params, tmp_path)
    run_conditions(params, root)
    records = {r.key: r for r in iter_records(root / "curated", root / "selection")}
    assert len(records) == 12
    for part in "01":
        for row in read_table(root / "conditions" / part / "canny"):
            stored, image = row["image"]["bytes"], records[row["key"]].image_bytes
            assert decode_rgb(stored).shape == decode_rgb(image).shape


def test_a_part_that_keeps_nothing_runs_to_its_conditions(scene_images, tmp_path):
    icons = {f"a{i}.png": (encode_png(np.zeros((9, 9), np.uint8)), CAPTION) for i in range(9)}
    scenes = {f"b{i}.png": (encode_png(scene_images[i]), CAPTION) for i in range(9)}
    folder = write_folder(tmp_path / "source", icons | scenes)
    split = {"val": 0.0, "test": 0.0}
    changes = {**SETTINGS, "ingest.path": str(folder), "ingest.shard_size_samples": 9}
    params = make_params(tmp_path / "work", {**changes, "deduplicate.split": split})
    root = run_to_selection(params, tmp_path)
    run_conditions(params, root)
    assert not list((root / "curated/0").glob("0*.parquet"))
    assert [len(list(read_table(root / f"conditions/{part}/canny"))) for part in "01"] == [0, 9]
    assert len(list(iter_records(root / "curated", root / "selection"))) == 9


def test_stages_say_how_many_images_are_left(mixed_params, tmp_path, capsys):
    root = run_to_selection(mixed_params, tmp_path)
    first, second, whole = [x for x in capsys.readouterr().err.splitlines() if " in, " in x]
    counts = artifacts.read_json(root / "curated/0/counts.json")
    assert first.startswith(f"{counts['input']} in, {counts['kept']} kept, 6 gone: 2 unre")
    assert second == "33 in, 33 kept"
    splits = pq.read_table(root / "selection/selection.parquet")["split"].to_pylist()
    sizes = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "val", "test"))
    assert whole.startswith("81 in, 60 kept, 21 gone: 10 near_duplicate, 5")
    assert whole.endswith(f"; {sizes}")
