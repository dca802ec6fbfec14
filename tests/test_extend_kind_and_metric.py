"""A kind of condition map and a metric, each added in a copy of the repository."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project import Project, copy_repository

MAX_FILES = 3
GENERATED = ("workflow/code/", "workflow/schemas/", "docs/params.md", "dvc.yaml")
KIND = '''"""Luminance: the image without its colours."""

from distillery.data.conditions.kind import ConditionKind


def luminance_map(image):
    """uint8 (H, W) of an RGB image (H, W, 3)."""
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


LUMINANCE = ConditionKind("luminance", "Luminance", "maps are grey", luminance_map)
'''
METRIC = '''"""How much brighter an image is than its reference."""

from distillery.metrics.meter import PAIRS, Meter, needing


def _values(chunk, tools):
    means = [side.reshape(len(side), -1).mean(axis=1) for side in (chunk.images, chunk.reference)]
    return {"brightness_gap": means[0] - means[1]}


BRIGHTNESS_GAP = Meter({"brightness_gap": needing(PAIRS)}, _values, lambda tools, columns: {})
'''


@pytest.fixture
def copy(tmp_path: Path, tiny_teacher: Path, python: Path) -> Project:
    return copy_repository(tmp_path / "copy", tiny_teacher, python=python)


def _edit(project: Project, file: str, *replaced: tuple[str, str]) -> None:
    path = project.root / file
    text = path.read_text()
    for old, new in replaced:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)


def _touched(project: Project) -> list[str]:
    lines = project.git("status", "--porcelain", "--untracked-files=all").splitlines()
    return [line[3:] for line in lines if not line[3:].startswith(GENERATED)]


def test_a_kind_is_a_file_a_line_and_a_word_in_the_params(copy: Project):
    (copy.root / "src/distillery/data/conditions/luminance.py").write_text(KIND)
    _edit(
        copy, "src/distillery/data/conditions/__init__.py",
        ("from distillery.data.conditions.seg", "from distillery.data.conditions.luminance import "
         "LUMINANCE\nfrom distillery.data.conditions.seg"),
        ("SKETCH, SEGMENTATION)", "SKETCH, SEGMENTATION, LUMINANCE)"),
    )  # fmt: skip
    kinds = "[canny, sketch, segmentation"
    _edit(copy, "params.yaml", *[(f"{kinds}]", f"{kinds}, luminance]")] * 2)
    copy.run_file("workflow/sync.py")
    assert len(_touched(copy)) <= MAX_FILES
    planned = copy.run("snakemake", "--dry-run", "--cores", "1", "all")
    assert "extract_conditions" in planned
    copy.run("snakemake", "--cores", "1", "data/conditions/0")
    assert list((copy.root / "data/conditions/0/luminance").glob("*.parquet"))
    assert "extract_conditions" in copy.run("dvc", "repro", "--dry", "extract_conditions@0")


def test_a_metric_is_a_file_and_two_lines(copy: Project, tmp_path: Path):
    (copy.root / "src/distillery/metrics/brightness_gap.py").write_text(METRIC)
    _edit(
        copy, "src/distillery/metrics/meters.py",
        ("from distillery.metrics.clip_score", "from distillery.metrics.brightness_gap import "
         "BRIGHTNESS_GAP\nfrom distillery.metrics.clip_score"),
        ("    READER,\n", "    READER,\n    BRIGHTNESS_GAP,\n"),
    )  # fmt: skip
    _edit(
        copy, "src/distillery/metrics/catalog.py",
        ("_METRICS = (\n", '_METRICS = (\n    Metric("brightness_gap", "Brighter by"),\n'),
    )  # fmt: skip
    copy.run_file("workflow/sync.py")
    assert len(_touched(copy)) <= MAX_FILES
    for name, level in (("a", 90), ("b", 40)):
        (tmp_path / name).mkdir()
        for i in range(3):
            image = np.full((16, 16, 3), level + i, dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    folders = ["--images", str(tmp_path / "a"), "--reference", str(tmp_path / "b")]
    table = copy.run("distillery.cli", "evaluate", *folders, "--out", str(tmp_path / "m.json"))
    assert "brightness_gap" in table
    gap = json.loads((tmp_path / "m.json").read_text())["metrics"]["brightness_gap"]
    assert (gap["value"], gap["n"]) == (50, 3)
    named = copy.run_code("from distillery.metrics.catalog import label_of as l; "
                          "print(l('brightness_gap'))")  # fmt: skip
    assert "Brighter by" in named
