"""Fixtures that several folders of tests share."""

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from distillery.params import Params, load_params
from project import DVC_TARGETS, ROOT, Project, copy_repository, finish, save_tiny_teacher
from warm_python import warm_python

# One thread a process, also in those that tests start: with two workers on two cores, threads that
# wait for each other burn several times the work. Before anything imports torch, which reads it.
os.environ["OMP_NUM_THREADS"] = "1"
gc.disable()  # until all is imported, as in distillery.stages
# In memory where there is room for all that tests write: each file that is published or committed
# to Git or DVC waits 2 to 5 ms for a disk.
MEMORY, ROOM_BYTES = "/dev/shm", 4 * 2**30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
TESTS = Path(__file__).parent
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
Fill = Callable[[Path], object]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files go first, so that short ones fill both workers' time to the end.

    First of all what needs the slow `finished`, then what runs commands and so lies outside of the
    folders; of that last what needs the `python` that the first one waits for.
    """
    waiting = {item.path for item in items if "python" in item.fixturenames}

    def place(item: pytest.Item) -> tuple[bool, ...]:
        is_inside = item.path.parent != TESTS
        return (
            "finished" not in item.fixturenames,
            is_inside,
            not is_inside and item.path in waiting,
        )

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What was imported stays: no later search for garbage needs to look at it."""
    gc.collect()
    gc.freeze()
    gc.enable()


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
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Fill], Path]:
    """`once(name, fill)` is a folder that the first worker fills, for all of them to read."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if IS_WORKER else root

    def filled(name: str, fill: Fill) -> Path:
        place, is_filled = root / name, root / f"{name}.filled"
        with FileLock(root / f"{name}.lock"):
            if not is_filled.exists():
                place.mkdir()
                fill(place)
                is_filled.touch()
        return place

    return filled


@pytest.fixture(scope="session")
def python(once: Callable[[str, Fill], Path]) -> Path:
    """A folder with a `python` that starts stages quickly; one for all workers."""
    process = os.getppid() if IS_WORKER else os.getpid()
    return once("python", lambda place: warm_python(place, process)) / "bin"


@pytest.fixture(scope="session")
def finished(
    tiny_teacher: Path, python: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Project]:
    """The preset quick from nothing: all of it by Snakemake, up to one student's metrics by DVC.

    50 processes in all.
    """
    by_snakemake, by_dvc = (
        copy_repository(tmp_path_factory.mktemp(name), tiny_teacher, python=python)
        for name in ("smk", "dvc")
    )
    snakemake = by_snakemake.start("snakemake", "--cores", "4", "all")
    dvc = by_dvc.start("dvc", "repro", *DVC_TARGETS)
    assert "Done. Open reports/index.html" in finish(snakemake)
    finish(dvc)
    return by_snakemake, by_dvc
