"""A broken file given by `snakemake --configfile` ends with its line, and nothing after it."""

import subprocess
import sys
from pathlib import Path

import pytest

from project import ROOT
from snakemake_logger_plugin_distillery import config_files, require_readable


def test_snakemake_says_the_line_last(tmp_path: Path) -> None:
    """By the command that a user types; Snakemake itself would say that it is no YAML."""
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\ncurate:\n\tmin_side_px: 3\n")
    command = [sys.executable, "-m", "snakemake", "-n", "all", "--configfile", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{file}:3: not valid YAML")


def test_other_projects_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["--configfile", str(tmp_path / "lost.yaml")]
    monkeypatch.chdir(tmp_path)
    require_readable(words)
    monkeypatch.chdir(ROOT)
    require_readable(["all"])
    with pytest.raises(SystemExit):
        require_readable(words)
    assert capsys.readouterr().err.endswith("lost.yaml: not found; check the name\n")


def test_files_are_found_in_every_spelling() -> None:
    words = ["-n", "--configfile", "a", "b", "--cores", "2", "--configfiles=c", "d", "-p", "all"]
    assert [str(file) for file in config_files(words)] == ["a", "b", "c", "d"]
