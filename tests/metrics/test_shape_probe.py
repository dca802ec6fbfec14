"""Scores of the teacher's CLIP decide nothing before it is known to see shapes."""

import shutil
from pathlib import Path

from distillery.core.artifacts import read_json
from distillery.metrics.features import load_extractor
from distillery.metrics.lpips_networks import load_lpips
from distillery.metrics.shape_probe import (
    RECORD,
    describe,
    read_accuracy,
    record_accuracy,
    why_shut,
)
from distillery.scenes_teacher.probe import record_probe
from distillery.teacher.copy import copy_teacher

SHIPPED = Path(__file__).parents[2] / "data" / "scenes-sd"


def test_the_shipped_teacher_has_a_record_that_opens_the_gate(tmp_path: Path):
    copy_teacher(SHIPPED, tmp_path / "teacher", {})
    clip = load_extractor("teacher_clip", tmp_path / "teacher", "cpu")
    assert clip.settings()["shape_probe"] == read_json(SHIPPED / "clip" / RECORD)["accuracy"] >= 0.9
    assert why_shut(clip.settings()) is None
    assert describe(clip.settings()) == "linear probe for shapes 0.927, 0.9 needed to decide"
    lpips = load_lpips("teacher_clip", None, "cpu", clip).settings()
    assert lpips["shape_probe"] == clip.shape_probe


def test_without_a_record_or_with_a_low_one_the_gate_is_shut(tiny_teacher: Path, tmp_path: Path):
    teacher = shutil.copytree(tiny_teacher, tmp_path / "teacher")
    before = load_extractor("teacher_clip", teacher, "cpu")
    assert "no linear probe for shapes is recorded" in why_shut(before.settings())
    found = record_probe(teacher / "clip", num_scenes=60)
    assert 0 <= found["shape_probe"] < 0.9
    assert found["num_test"] == 12
    after = load_extractor("teacher_clip", teacher, "cpu")
    assert f"finds {found['shape_probe']:.3f} of the shapes" in why_shut(after.settings())
    assert after.fingerprint == before.fingerprint


def test_a_record_of_other_weights_does_not_count(tiny_teacher: Path, tmp_path: Path):
    clip = shutil.copytree(tiny_teacher / "clip", tmp_path / "clip")
    record_accuracy(clip, 0.95, 600)
    assert read_accuracy(clip) == 0.95
    (clip / "model.safetensors").write_bytes(b"others")
    assert read_accuracy(clip) is None


def test_networks_that_a_user_names_are_not_asked(tiny_teacher: Path):
    named = load_extractor(str(tiny_teacher / "clip"), None, "cpu").settings()
    assert "shape_probe" not in named
    assert why_shut(named) is None
    assert describe(named) == ""
    assert why_shut({}) is None
