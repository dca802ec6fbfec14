"""`dvc exp run -S key=value`: DVC writes params.yaml anew, and every stage still reads it.

Two are queued, as far as their start: DVC's worker sleeps for half a minute. Two are run as
`--temp` does, in copies like those of the queue.
"""

import os
from pathlib import Path

import pytest
from dvc.repo import Repo

from distillery.params import load_params
from project import Project, copy_repository
from warm_python import parse_once

parse_once()
EDITS = {
    "ingest.scenes.num_scenes=64": ("ingest", "scenes", "num_scenes", 64),
    "distill_unet.variants.elr.learning_rate=1e-3": (
        "distill_unet", "variants", "elr", "learning_rate", 0.001,
    ),
}  # fmt: skip


@pytest.fixture
def project(
    tmp_path: Path, tiny_teacher: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    made = copy_repository(tmp_path / "project", tiny_teacher)
    monkeypatch.setenv("PATH", f"{python}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(made.root)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "tester")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "tester@example.org")
    return made


def test_queued_experiments_have_params_that_stages_read(project: Project) -> None:
    before = load_params(project.root / "params.yaml").model_dump()
    with Repo(str(project.root)) as repo:
        for edit in EDITS:
            repo.experiments.run(targets=["ingest"], params=[edit], queue=True)
        queued = [entry.stash_rev for entry in repo.experiments.celery_queue.iter_queued()]
        shown = repo.experiments.show(include_queued=True)
    assert len(queued) == len(shown[-1].experiments) == len(EDITS)
    changed = {_only_change(project, revision, before) for revision in queued}
    assert changed == set(EDITS.values())


def test_experiments_are_run_and_shown_with_their_values(project: Project) -> None:
    edits = [f"ingest.scenes.num_scenes={number}" for number in (16, 24)]
    with Repo(str(project.root)) as repo:
        for edit in edits:
            repo.experiments.run(targets=["ingest"], params=[edit], tmp_dir=True)
        (*_, head) = repo.experiments.show()
    shown = [experiment.revs[0].data for experiment in head.experiments]
    numbers = {one.params["params.yaml"]["data"]["ingest"]["scenes"]["num_scenes"] for one in shown}
    assert numbers == {16, 24}
    assert len({one.outs["data/raw"].hash for one in shown}) == len(edits)
    assert project.git("status", "--short") == ""


def _only_change(project: Project, revision: str, before: dict) -> tuple:
    """The key and value in which an experiment's params differ from those before."""
    path = project.root / "experiment.yaml"
    path.write_text(project.git("show", f"{revision}:params.yaml"))
    after, own, key = load_params(path).model_dump(), before, ()
    while isinstance(after, dict):
        ((name, after, own),) = [(k, after[k], own[k]) for k in own if own[k] != after[k]]
        key = (*key, name)
    return (*key, after)
