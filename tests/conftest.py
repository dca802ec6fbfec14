"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

from distillery.params import Params, load_params
from project import DVC_TARGETS, ROOT, Project, copy_repository, finish, save_tiny_teacher


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the slow `finished` goes first, so that the other worker fills the time."""
    items.sort(key=lambda item: "finished" not in item.fixturenames)


@pytest.fixture(scope="session")
def default_params() -> Params:
    """The shipped params.yaml."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete teacher folder with random weights: pipeline and CLIP, 64 px, a few 100 kB."""
    folder = tmp_path_factory.mktemp("tiny-teacher")
    save_tiny_teacher(folder)
    return folder


@pytest.fixture(scope="session")
def finished(
    tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Project]:
    """The tiny preset run from nothing: all of it by Snakemake, up to one student's metrics by DVC.

    Some 200 CPU seconds, most of them for importing torch in 30 processes.
    """
    by_snakemake, by_dvc = (
        copy_repository(tmp_path_factory.mktemp(name), tiny_teacher) for name in ("smk", "dvc")
    )
    snakemake = by_snakemake.start("snakemake", "--cores", "8", "all")
    dvc = by_dvc.start("dvc", "repro", *DVC_TARGETS)
    assert "Done. Open reports/index.html" in finish(snakemake)
    finish(dvc)
    return by_snakemake, by_dvc
