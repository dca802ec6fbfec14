"""The pages of docs/extend, followed to the letter in a copy of the repository."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

import extend
from project import ROOT, Project, copy_repository

# What a page may touch by hand at most; what tools write is not counted.
MAX_FILES = {"filter": 3, "metric": 3, "kind": 3, "stage": 9, "family": 7}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path, python: Path) -> Project:
    """One for all pages, which go together; the stage's is the first and finds no data."""
    root = tmp_path_factory.mktemp("extend") / "copy"
    project = copy_repository(root, tiny_teacher, python=python)
    shutil.copytree(ROOT / "docs", root / "docs", dirs_exist_ok=True)
    shutil.copytree(ROOT / "tests", root / "tests", ignore=shutil.ignore_patterns("__py*"))
    shutil.copy(ROOT / "pyproject.toml", root)
    _commit(project, "docs and tests")
    return project


def _commit(project: Project, message: str) -> None:
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", message)


def _followed(name: str, project: Project, *made: str) -> dict[str, str]:
    """Carry a page out; returns what its commands printed. `made`: files that they leave."""
    page = extend.read_page(name)
    touched = extend.apply(page, project)
    printed = extend.run(page, project)
    assert set(extend.committed(project)) == touched | set(made)
    assert len(touched) <= MAX_FILES[name]
    _commit(project, name)
    return printed


def test_every_page_is_followed_and_counted() -> None:
    assert set(extend.pages()) == set(MAX_FILES)
    index = (ROOT / "docs/extend.md").read_text()
    rows = dict(re.findall(r"\(extend/(\w+)\.md\) \| (\d+) \|", index))
    assert {name: int(num) for name, num in rows.items()} == MAX_FILES


def test_stage(copy: Project) -> None:
    printed = _followed("stage", copy)
    assert "passed" in printed["pytest tests/test_parity.py"]
    assert "count_words" in printed["snakemake --dry-run all"]
    assert "count_words" in printed["dvc repro --dry --force count_words"]
    counts = json.loads((copy.root / "data/words/0/words.json").read_text())
    assert len(counts) <= 50
    assert counts["a"] == max(counts.values()) > 10


def test_kind(copy: Project) -> None:
    printed = _followed("kind", copy)
    assert list((copy.root / "data/conditions/0/luminance").glob("*.parquet"))
    assert "extract_conditions" in printed["dvc repro --dry --force extract_conditions"]


def test_metric(copy: Project) -> None:
    for name, level in (("bright", 90), ("dark", 40)):
        (copy.root / name).mkdir()
        for i in range(3):
            image = np.full((16, 16, 3), level + i, dtype=np.uint8)
            Image.fromarray(image).save(copy.root / name / f"{i}.png")
    _commit(copy, "pictures")
    printed = _followed("metric", copy, "gap.json")
    assert any("brightness_gap" in text for text in printed.values())
    gap = json.loads((copy.root / "gap.json").read_text())["metrics"]["brightness_gap"]
    assert (gap["value"], gap["n"]) == (50, 3)


def test_family(copy: Project) -> None:
    printed = _followed("family", copy)
    assert "rounded/copy" in printed["distillery params --preset params.yaml"]
    assert "passed" in printed["pytest tests/test_parity.py"]
    dry = printed["snakemake --dry-run all"]
    assert all(f"{job} rounded/copy" in dry for job in ("generate", "evaluate"))
    assert "round_unet" in printed["dvc repro --dry --force evaluate_rounded"]


def test_filter(copy: Project) -> None:
    printed = _followed("filter", copy)
    rejected = ds.dataset(copy.root / "data/curated/0/rejected").to_table().to_pylist()
    reasons = {row["reason"]: row["detail"] for row in rejected}
    assert re.fullmatch(r"\d+ words > 4", reasons["caption_wordy"])
    assert "deduplicate" in printed["dvc repro --dry --force deduplicate"]
