"""A killed Snakemake's lock is told of, a working one's is not."""

import subprocess
import sys
from pathlib import Path

from distillery.commands.plan import lock_left


def test_the_lock_of_a_dead_snakemake_is_told_of(tmp_path: Path) -> None:
    assert lock_left(tmp_path) == ""
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    assert lock_left(tmp_path) == ""
    (locks / "0.input.lock").write_text("data/raw\n")
    assert "run `snakemake --unlock` first" in lock_left(tmp_path)


def test_the_lock_of_one_that_runs_is_its_own(tmp_path: Path) -> None:
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    command = [sys.executable, "-c", "print(flush=True); input()", "snakemake"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as running:
        running.stdout.readline()  # it has begun, so its command line can be seen
        assert lock_left(tmp_path) == ""
        running.communicate(b"\n")
    assert "--unlock" in lock_left(tmp_path)
