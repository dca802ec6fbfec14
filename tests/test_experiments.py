"""`dvc exp run -S key=value`: DVC writes params.yaml anew, and every stage still reads it.

Queued, not run: DVC's queue sleeps for half a minute, and what its rewriting breaks is seen before.
"""

from pathlib import Path

import pytest
from dvc.repo import Repo

from distillery.params import load_params
from project import Project, copy_repository

EDITS = {
    "ingest.scenes.num_scenes=64": ("ingest", "scenes", "num_scenes", 64),
    "distill_unet.variants.elr.learning_rate=1e-3": (
        "distill_unet", "variants", "elr", "learning_rate", 0.001,
    ),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = copy_repository(tmp_path / "project", tiny_teacher)
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


def _only_change(project: Project, revision: str, before: dict) -> tuple:
    """The key and value in which an experiment's params differ from those before."""
    path = project.root / "experiment.yaml"
    path.write_text(project.git("show", f"{revision}:params.yaml"))
    after, own, key = load_params(path).model_dump(), before, ()
    while isinstance(after, dict):
        ((name, after, own),) = [(k, after[k], own[k]) for k in own if own[k] != after[k]]
        key = (*key, name)
    return (*key, after)
