"""A new filter is its file, its line in the registry and its key in params.yaml: no more."""

import json
import subprocess
import sys

import pytest
from command_helpers import CAPTIONS, PICTURES, write_files

from project import Project, copy_repository

pytestmark = pytest.mark.timeout(600)

FOLDER = "src/distillery/data/curation/filters"
TOY = '''"""The filter on captions that shout."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class CaptionShout(Filter):
    """Too much of the caption is in capital letters."""

    reason = "caption_shout"
    max_capital_share: Annotated[
        float | None, Field(description="Captions with a larger share of capitals are dropped.")
    ]

    def reject(self, row: Candidate) -> str | None:
        share = sum(letter.isupper() for letter in row.caption) / max(len(row.caption), 1)
        return f"{share:.2f} capitals" if share > self.max_capital_share else None
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_teacher, python) -> Project:
    """A copy of the repository with a new filter."""
    project = copy_repository(tmp_path_factory.mktemp("toy"), tiny_teacher, python=python)
    root = project.root
    (root / FOLDER / "caption_shout.py").write_text(TOY)
    registry = root / FOLDER / "__init__.py"
    text = registry.read_text()
    place = "from distillery.data.curation.filters.caption_spam import"
    line = "from distillery.data.curation.filters.caption_shout import CaptionShout\n"
    text = text.replace(place, line + place)
    registry.write_text(
        text.replace("    CaptionShort,\n)", "    CaptionShort,\n    CaptionShout,\n)")
    )
    project.edit_params("\ncurate:\n", "\ncurate:\n  max_capital_share: 0.5\n")
    return project


def changed_files(project: Project) -> list[str]:
    status = run_in(project, "git", "status", "--porcelain", "--untracked-files=all")
    return [line[3:] for line in status.splitlines()]


def run_in(project: Project, *command: str) -> str:
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_toy_filter_runs(project):
    assert len(changed_files(project)) == 3
    run_in(project, sys.executable, "workflow/sync.py")
    assert "curate" in project.run("snakemake", "-n", "--cores", "1", "all")
    files = {f"{i}.jpg": picture for i, picture in enumerate(PICTURES)}
    texts = [CAPTIONS[0].upper(), *CAPTIONS[1:]]
    files |= {f"{i}.txt": text.encode() for i, text in enumerate(texts)}
    write_files(project.root / "images", files)
    project.edit_params("source: scenes        # scenes |", "source: folder # scenes |")
    project.edit_params("path: null            # file or", "path: images # file or")
    project.run("distillery.stages.ingest", "--params", "params.yaml", "--raw", "data/raw")
    assert "curate@0" in project.run("dvc", "repro", "--dry", "--single-item", "curate")
    project.run(
        "distillery.stages.curate", "--params", "params.yaml", "--part", "0",
        "--raw", "data/raw", "--curated", "data/curated/0",
    )  # fmt: skip
    counts = json.loads((project.root / "data/curated/0/counts.json").read_text())
    assert (counts["kept"], counts["rejected"]) == (5, {"caption_shout": 1})
