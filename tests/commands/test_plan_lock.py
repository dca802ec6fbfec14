"""What killed front ends leave is told of, what working ones have is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from distillery.commands.handover import adopt, trust
from distillery.commands.plan import lock_left, record_cut
from distillery.core.errors import DistilleryError


def test_the_lock_of_a_dead_snakemake_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lock_left() == ""
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    assert lock_left() == ""
    (locks / "0.input.lock").write_text("data/raw\n")
    assert "run `snakemake --unlock` first" in lock_left()


def test_the_lock_of_one_that_runs_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    command = [sys.executable, "-c", "print(flush=True); input()", "snakemake"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as running:
        running.stdout.readline()  # it has begun, so its command line can be seen
        assert lock_left() == ""
        running.communicate(b"\n")
    assert "--unlock" in lock_left()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dvc.lock", ""),
        ("dvc.lock", "schema: '2.0'\nstages:\n  ingest:\n    cm"),
        (".dvc/tmp/rwlock", ""),
        (".dvc/tmp/rwlock", '{"write": {"data/ra'),
    ],
)
def test_a_record_of_dvc_that_was_cut_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert record_cut() == ""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  ingest:\n    cmd: x\n")
    (tmp_path / ".dvc/tmp/rwlock").write_text("{}")
    assert record_cut() == ""
    (tmp_path / name).write_text(text)
    for act in (adopt, trust):
        with pytest.raises(DistilleryError, match=f"^{name} is cut short.*: delete it"):
            act()
