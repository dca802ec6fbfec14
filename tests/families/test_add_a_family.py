"""A new family is a handful of files; rules, samples, metrics and report follow from them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from toy_family import EDITS

from project import Project, copy_repository

GENERATED = ("workflow/code/", "workflow/schemas/", "docs/params.md")
MODEL, METRICS = "models/toy/copy", "metrics/toy/copy.json"
# The stage, then a picture by the model's folder alone; in one process, as importing torch is slow.
SCRIPT = """
import sys
from distillery import cli
from distillery.stages.distill_toy import distill_toy
distill_toy.main(["--params", "params.yaml", "--variant", "copy", "--teacher", "data/tiny-teacher",
                  "--model", "models/toy/copy"])
cli.main(["generate", "models/toy/copy", "--prompt", "a red circle", "--steps", "1",
          "--out", "images"])
"""


def _changed(project: Project) -> set[str]:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True)
    return {line[3:] for line in done.stdout.splitlines()}


def _run(project: Project, *command: str) -> str:
    """Run Python in the project, with its own code; failure is an error."""
    done = subprocess.run(
        [sys.executable, *command], cwd=project.root, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "src"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_repository(tmp_path_factory.mktemp("toy") / "project", tiny_teacher)
    for edit in EDITS:
        edit.apply(project.root)
    return project


@pytest.fixture(scope="module")
def edited(project: Project) -> set[str]:
    """The files that a person edits; afterwards the generated ones are written too."""
    edited = _changed(project)
    _run(project, "workflow/sync.py")
    return edited


@pytest.fixture(scope="module")
def jobs(project: Project, edited: set[str]) -> dict[str, dict]:
    lines = _run(project, "workflow/jobs.py").splitlines()
    return {job["label"]: job for job in map(json.loads, lines)}


def test_it_takes_ten_files_at_most(project: Project, edited: set[str]) -> None:
    assert edited == {edit.file for edit in EDITS}
    assert len(edited) <= 10
    written = _changed(project) - edited
    assert "workflow/code/distill_toy.lock" in written
    assert all(path.startswith(GENERATED) for path in written), written


def test_snakemake_makes_all_of_it(jobs: dict[str, dict]) -> None:
    labels = {"distill_toy/copy", "generate/toy/copy", "evaluate/toy/copy"}
    assert labels <= jobs.keys()
    assert MODEL in jobs["profile"]["input"]
    assert {MODEL, "samples/toy/copy", METRICS} <= set(jobs["report"]["input"])


def test_dvc_has_the_same_commands(project: Project, jobs: dict[str, dict]) -> None:
    with Repo(str(project.root)) as repo:
        stages = {stage.cmd: stage for stage in repo.index.stages}
    for job in jobs.values():
        assert job["command"] in stages, job["label"]
        assert stages[job["command"]].name.split("@")[0] == job["rule"]


def test_its_students_are_made_and_draw(project: Project, edited: set[str]) -> None:
    _run(project, "-c", SCRIPT)
    assert (project.root / "images/00000.png").is_file()


def test_a_family_without_texts_fails_when_it_is_imported(project: Project) -> None:
    path = project.root / "src/distillery/families/toy.py"
    whole = path.read_text()
    try:
        path.write_text(whole.replace('title="A rounded U-Net"', 'title=""'))
        command = [sys.executable, "-c", "import distillery.families"]
        done = subprocess.run(
            command, cwd=project.root / "src", capture_output=True, text=True, check=False
        )
    finally:
        path.write_text(whole)
    assert "ValueError: Texts: title is empty" in done.stderr
