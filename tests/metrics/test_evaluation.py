"""Evaluation of small random models, from samples on disk to the metrics file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distillery.data.curate import CURATED_SCHEMA
from distillery.data.dedupe_selection import SELECTION_SCHEMA
from distillery.errors import DistilleryError
from distillery.metrics import students
from distillery.metrics.evaluation import ceiling, load_records, measure_samples
from distillery.metrics.features import load_extractor
from distillery.metrics.intervals import metrics_file
from distillery.metrics.measure import Measure
from distillery.metrics.prediction import make_probe, relative_distances
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.ranks import plan_ranks
from distillery.run import Run
from distillery.samples import SCHEMA, encode_png
from distillery.shards import write_table_shard
from distillery.teacher.load import load_teacher

CAPTIONS = [f"a red circle on a {ground} background" for ground in ("white", "black")] * 12
KEYS = [f"{i:09d}" for i in range(24)]


def _images(seed: int) -> list[bytes]:
    generator = np.random.default_rng(seed)
    return [encode_png(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in KEYS]


def _write_samples(folder: Path, seed: int, image_seed: int) -> None:
    rows = [
        {"key": k, "image": {"bytes": i, "path": None}, "caption": c, "noise_seed": 0}
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
    return root


@pytest.fixture(scope="module")
def measure(tiny_teacher: Path) -> Measure:
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    return Measure(clip, clip, "", 200, 4)


def _records(root: Path, num_samples: int = 24):
    return load_records(root / "student", root / "curated", root / "selection", 64, num_samples)


def test_every_metric_has_the_contract_and_contains_its_value(run_folder: Path, measure: Measure):
    records = _records(run_folder)
    samples, reference = run_folder / "student", run_folder / "teacher"
    by_seed, skipped = measure_samples(measure, samples, reference, records, has_reader=True)
    found = metrics_file(by_seed, skipped, {})
    assert {"fid", "kid", "clip_score", "fid_teacher", "psnr", "ssim", "reader_shape"} <= set(
        found["metrics"]
    )
    for metric in found["metrics"].values():
        assert set(metric) == {"value", "std", "ci_low", "ci_high", "n", "seeds", "settings"}
        assert metric["ci_low"] <= metric["value"] <= metric["ci_high"]
        assert metric["seeds"] == [0, 1]
        assert metric["n"] == 24
    assert found["metrics"]["fid"]["settings"]["notes"]
    assert skipped == {}


def test_the_reference_is_not_compared_with_itself(run_folder: Path, measure: Measure):
    records, teacher = _records(run_folder, 8), run_folder / "teacher"
    by_seed, skipped = measure_samples(measure, teacher, teacher, records, has_reader=False)
    assert "fid_teacher" in skipped
    assert "scenes source only" in skipped["reader_shape"]
    assert not set(skipped) & set(by_seed[0])
    assert next(iter(by_seed[0].values()))[0].n == 8


def test_samples_of_other_records_are_refused(run_folder: Path, measure: Measure, tmp_path: Path):
    other = [{"key": "x", "part": 0, "cluster": "x", "split": "train"}]
    write_table_shard(tmp_path / "selection.parquet", other, SELECTION_SCHEMA)
    with pytest.raises(DistilleryError, match="not in the test split"):
        load_records(run_folder / "student", run_folder / "curated", tmp_path, 64, 8)


def test_captions_without_scenes_skip_the_reader(measure: Measure):
    images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    found, skipped = measure.reader(images, ["a photo of a dog", "a cat"])
    assert found == {}
    assert set(skipped) == {"reader_colour", "reader_shape", "reader_pair", "reader_background"}


def test_ceilings_have_names_of_their_own(run_folder: Path, measure: Measure):
    records = _records(run_folder, 4)
    found = ceiling(measure, records.real, records.captions)
    assert {"clip_score_ceiling", "reader_shape_ceiling"} <= set(found)


def test_prediction_distance_is_zero_for_the_teacher_and_one_for_nothing(tiny_teacher: Path):
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    probe = make_probe(teacher, images, CAPTIONS[:3], KEYS[:3], 0, 2)
    expected = probe.ask(teacher.unet, lambda count: None)
    assert relative_distances(expected, expected, 2).tolist() == [0, 0, 0]
    nothing = relative_distances(torch.zeros_like(expected), expected, 2)
    assert nothing.mean() == pytest.approx(1, rel=1e-6)
    manual = [(expected[2 * i : 2 * i + 2] ** 2).mean() / (expected**2).mean() for i in range(3)]
    np.testing.assert_allclose(nothing, manual, rtol=1e-5)


def test_students_are_measured_per_seed_behind_the_export_gate(
    run_folder: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    student = LowRankUNet2DConditionModel.from_dense(teacher.unet, plan_ranks(teacher.unet))
    student.save_pretrained(tmp_path / "model")
    teacher.unet.save_pretrained(tmp_path / "model" / "seed-7")
    arguments = {"num_records": 4, "plan_seed": 0, "num_slots": 2, "num_bootstrap": 100}
    call = (tiny_teacher, tmp_path / "model", [0, 7], _records(run_folder), torch.device("cpu"))
    run = Run("evaluate/x", "f" * 64, tmp_path / "work")
    found = students.prediction_distances(run, *call, **arguments)
    assert found[0]["prediction_distance"][0].value > 0.01
    assert found[7]["prediction_distance"][0].value == 0
    monkeypatch.setattr(students, "EXPORT_TOLERANCE", -1.0)
    with pytest.raises(DistilleryError, match="outputs differ"):
        students.prediction_distances(run, *call, **arguments)
