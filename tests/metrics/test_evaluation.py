"""Evaluation of small random models, from samples on disk to the metrics file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.core.shards import write_table_shard
from distillery.data.conditions.annotate import CONDITION_SCHEMA
from distillery.data.conditions.canny import canny_map
from distillery.data.curation.curate import CURATED_SCHEMA
from distillery.data.dedupe.selection import SELECTION_SCHEMA
from distillery.families.comparisons import comparisons
from distillery.metrics import meters
from distillery.metrics.controlled import control_judge
from distillery.metrics.evaluation import (
    Records,
    ceiling,
    load_images,
    load_records,
    measure_samples,
)
from distillery.metrics.features import load_extractor
from distillery.metrics.intervals import metrics_file
from distillery.metrics.lpips_networks import load_lpips
from distillery.metrics.meter import Chunk, Tools
from distillery.metrics.reader import READER
from distillery.metrics.stream import Pass
from distillery.sampling.samples import SCHEMA, decode_png, encode_png, hash_order, read_samples

BUILTIN = {"segmentation": "builtin"}
CAPTIONS = [f"a red circle on a {ground} background" for ground in ("white", "black")] * 12
KEYS = [f"{i:09d}" for i in range(24)]


def _images(seed: int) -> list[bytes]:
    generator = np.random.default_rng(seed)
    return [encode_png(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in KEYS]


def _write_samples(folder: Path, seed: int, image_seed: int, condition: str = "") -> None:
    made = {"noise_seed": 0, "condition": condition}
    rows = [
        {"key": k, "image": {"bytes": i, "path": None}, "caption": c, **made}
        for k, i, c in zip(KEYS, _images(image_seed), CAPTIONS, strict=True)
    ]
    write_table_shard(folder / f"seed-{seed}" / "00000.parquet", rows, SCHEMA)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    empty = dict.fromkeys(CURATED_SCHEMA.names)
    rows = [
        {**empty, "key": k, "image": {"bytes": i, "path": None}, "caption": c}
        for k, i, c in zip(KEYS, _images(9), CAPTIONS, strict=True)
    ]
    write_table_shard(root / "curated" / "0" / "00000.parquet", rows, CURATED_SCHEMA)
    chosen = [{"key": k, "part": 0, "cluster": k, "split": "test"} for k in KEYS]
    write_table_shard(root / "selection" / "selection.parquet", chosen, SELECTION_SCHEMA)
    _write_samples(root / "teacher", 0, 1)
    for seed in (0, 1):
        _write_samples(root / "student", seed, 2 + seed)
    for name, image_seed in (("control", 5), ("control_canny", 6), ("control_canny_offset", 7)):
        _write_samples(root / name, 0, image_seed, "canny")
    maps = [
        {"key": k, "image": {"bytes": encode_png(canny_map(decode_png(i))), "path": None}}
        for k, i in zip(KEYS, _images(9), strict=True)
    ]
    write_table_shard(root / "maps" / "0" / "canny" / "00000.parquet", maps, CONDITION_SCHEMA)
    return root


@pytest.fixture(scope="module")
def tools(tiny_teacher: Path) -> Tools:
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    return Tools(clip, clip, "", 200, 4, load_lpips("teacher_clip", tiny_teacher, "cpu", clip))


def _records(root: Path, num_samples: int = 24, name: str = "student") -> Records:
    return load_records(root / name, root / "curated", root / "selection", 64, num_samples)


def _compare(root: Path, variant: str, name: str, records: Records, *references: str | None):
    paths = [None if r is None else root / r for r in references]
    return comparisons(
        variant, root / name, records.real, lambda folder: load_images(folder, records.keys), *paths
    )


def test_every_metric_has_the_contract_and_contains_its_value(run_folder: Path, tools: Tools):
    records = _records(run_folder)
    compared, missing = _compare(run_folder, "unet/x", "student", records, "teacher", None)
    by_seed, skipped = measure_samples(
        tools, run_folder / "student", records, compared, is_scenes=True
    )
    found = metrics_file(by_seed, skipped | missing, {}, records.keys)
    assert {"fid", "kid", "clip_score", "fid_teacher", "psnr", "ssim", "lpips"} <= set(
        found["metrics"]
    )
    for metric in found["metrics"].values():
        assert set(metric) == {"value", "std", "ci_low", "ci_high", "n", "seeds", "settings"}
        assert metric["ci_low"] <= metric["value"] <= metric["ci_high"]
        assert metric["seeds"] == [0, 1]
        assert metric["n"] == 24
    assert found["metrics"]["fid"]["settings"]["notes"]
    assert found["skipped"] == {}
    assert found["metrics"]["psnr"]["settings"]["reference"].endswith("same prompts and noise")
    values = found["per_image"]["values"]
    assert found["per_image"]["keys"] == sorted(KEYS, key=hash_order)
    assert set(values) & {"fid", "kid"} == set()
    assert {"psnr", "lpips", "clip_score", "reader_shape"} <= set(values)
    for name, by_training_seed in values.items():
        means = [np.mean(column) for column in by_training_seed.values()]
        assert np.mean(means) == pytest.approx(found["metrics"][name]["value"], rel=1e-3, abs=1e-4)


def test_the_reference_is_not_compared_with_itself(run_folder: Path, tools: Tools):
    records = _records(run_folder, 8)
    compared, skipped = _compare(run_folder, "teacher/guided", "teacher", records, "teacher", None)
    by_seed, missing = measure_samples(tools, run_folder / "teacher", records, compared)
    assert skipped["fid_teacher"] == skipped["lpips"] == "these are the reference images themselves"
    assert "scenes source only" in missing["reader_shape"]
    assert not set(skipped | missing) & set(by_seed[0])
    assert next(iter(by_seed[0].values()))[0].n == 8


def test_controlnets_have_three_sets_of_references(run_folder: Path, tools: Tools):
    records = _records(run_folder, name="control")
    names, keys = ("control_canny", "control_canny_offset"), records.keys
    compared, skipped = _compare(run_folder, "controlnet/x", "control", records, *names)
    by_seed, _ = measure_samples(tools, run_folder / "control", records, compared)
    assert skipped == {}
    groups = {"": records.real, "_pair": names[0], "_teacher": names[1]}
    images = load_images(run_folder / "control" / "seed-0", records.keys)
    for suffix, other in groups.items():
        if suffix:
            other = load_images(run_folder / other / "seed-0", keys)
        pairs = Pass(24, meters.of_pairs(), tools, {"": {}})
        expected, _ = pairs.run([Chunk(range(24), images[:], references={"": other[:]})]).means()
        for name in ("psnr", "ssim", "lpips"):
            assert by_seed[0][name + suffix][0] == expected[name][0]
    assert {"fid", "fid_teacher", "kid_teacher"} <= set(by_seed[0])
    assert "fid_pair" not in by_seed[0]
    assert by_seed[0]["psnr_teacher"][1]["reference"].endswith("same prompts, other noise")


def test_the_floor_is_the_teacher_against_its_other_noise(run_folder: Path):
    records = _records(run_folder, 8, "control_canny")
    names = "control_canny", "control_canny_offset"
    compared, skipped = _compare(
        run_folder, "teacher/control_canny", "control_canny", records, *names
    )
    assert [(c.distribution, c.fidelity) for c in compared] == [("", ""), ("_teacher", "_teacher")]
    assert set(skipped) == {"psnr_pair", "ssim_pair", "lpips_pair"}
    with pytest.raises(DistilleryError, match="--offset_reference is for ControlNets"):
        _compare(run_folder, "unet/x", "student", records, "teacher", "control_canny_offset")
    compared, skipped = _compare(run_folder, "control/x", "control", records, None, None)
    assert [(c.distribution, c.fidelity) for c in compared] == [("", None)]
    assert "no reference images" in skipped["fid_teacher"]


def test_the_maps_of_the_condition_are_judged(run_folder: Path, tools: Tools):
    records = _records(run_folder, name="control")
    judge = control_judge(tools, records, run_folder / "maps", 64, BUILTIN, "cpu")
    found, skipped = judge(load_images(run_folder / "control" / "seed-0", records.keys))
    perfect, _ = judge(records.real)
    assert perfect["edge_nmse"][0].value == 0
    assert found["edge_nmse"][0].value > 0.5
    assert "sketch_clip_score" in skipped


def test_images_without_a_map_are_judged_on_every_map(run_folder: Path, tools: Tools):
    """So that control can be seen against none."""
    records = _records(run_folder)
    assert not any(records.kinds)
    judge = control_judge(tools, records, run_folder / "maps", 64, BUILTIN, "cpu")
    found, skipped = judge(load_images(run_folder / "student" / "seed-0", records.keys))
    estimate, settings = found["edge_f1"]
    assert estimate.n == 24
    assert settings["condition"] == "canny, not given to the model"
    assert "no image is judged on a sketch map" in skipped["sketch_clip_score"]
    none = control_judge(tools, records, Path("none"), 64, BUILTIN, "cpu")
    assert none(records.real)[0] == {}


def test_metrics_do_not_depend_on_order_or_shards(run_folder: Path, tools: Tools):
    """A folder in other shards and another order of records gives the same values to 1e-6."""
    records, order = _records(run_folder), np.random.default_rng(0).permutation(24)
    rows = read_samples(run_folder / "student" / "seed-0")
    target = run_folder / "shuffled" / "seed-0"
    shuffled = [{**rows[i], "image": {"bytes": rows[i]["image"], "path": None}} for i in order]
    for number, start in enumerate(range(0, 24, 7)):
        write_table_shard(target / f"{number:05d}.parquet", shuffled[start : start + 7], SCHEMA)
    results = []
    for name in ("student", "shuffled"):
        records = _records(run_folder, name=name)
        compared, _ = _compare(run_folder, "unet/x", name, records, None, None)
        inverted = records.real.through(lambda images: 255 - images)
        compared += [replace(compared[0], images=inverted, fidelity="")]
        by_seed, _ = measure_samples(tools, run_folder / name, records, compared, is_scenes=True)
        results.append(by_seed[0])
    assert {"kid", "fid", "fid_extrapolated", "lpips"} <= set(results[0])
    for name in results[0]:
        a, b = (result[name][0].value for result in results)
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6), name


def test_samples_of_other_records_are_refused(run_folder: Path, tools: Tools, tmp_path: Path):
    other = [{"key": "x", "part": 0, "cluster": "x", "split": "train"}]
    write_table_shard(tmp_path / "selection.parquet", other, SELECTION_SCHEMA)
    with pytest.raises(DistilleryError, match="not in the test split"):
        load_records(run_folder / "student", run_folder / "curated", tmp_path, 64, 8)


def test_captions_without_scenes_skip_the_reader(tools: Tools):
    images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    run = Pass(2, [READER], tools)
    measured, skipped = run.run([Chunk(range(2), images, ["a photo of a dog", "a cat"])]).means()
    assert measured == {}
    assert set(skipped) == {"reader_colour", "reader_shape", "reader_pair", "reader_background"}


def test_ceilings_have_names_of_their_own(run_folder: Path, tools: Tools):
    records = _records(run_folder, 4)
    found = ceiling(tools, records.real, records.captions)
    assert {"clip_score_ceiling", "reader_shape_ceiling"} <= set(found)
