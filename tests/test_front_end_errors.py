"""What a user reads when a run can't start or a stage ends: one line, and nothing after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from project import Project, copy_repository


@pytest.fixture
def project(tmp_path: Path, tiny_teacher: Path, python: Path) -> Project:
    """A project whose pictures are still to come."""
    made = copy_repository(tmp_path / "project", tiny_teacher, python=python)
    params = made.root / "params.yaml"
    ingest, rest = params.read_text().split("\ncurate:")
    ingest = ingest.replace("source: scenes", "source: folder").replace(
        "path: null", "path: my/pictures"
    )
    params.write_text(f"{ingest}\ncurate:{rest}")
    return made


def _said(project: Project, *command: str) -> tuple[int, list[str]]:
    """By an interpreter that ends as users' do: the line comes when it does."""
    path = f"{project.python}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project.root, text=True, check=False,
        env={**os.environ, "PATH": path, "PYTHONPATH": "src"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_missing_pictures_are_noticed_before_anything_runs(project: Project) -> None:
    for command in (("snakemake", "-n", "all"), ("distillery.cli", "plan")):
        code, lines = _said(project, *command)
        assert code == 2
        assert "ingest.path: my/pictures is not there" in lines[-1]


def test_a_stages_line_is_the_last_on_the_screen(project: Project) -> None:
    pictures = project.root / "my/pictures"
    pictures.mkdir(parents=True)
    (pictures / "kite.txt").write_text("a kite without its picture")
    code, lines = _said(project, "snakemake", "--cores", "1", "data/raw")
    assert code == 1
    assert lines[-1].startswith("ingest: my/pictures: no images")
    assert not any("Traceback" in line for line in lines)
