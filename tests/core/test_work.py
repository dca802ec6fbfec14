"""One process at a time works at a label."""

import io
import os
import threading
import time
from pathlib import Path

import pytest

from distillery.core.work import alone


def test_the_second_waits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, said = [], io.StringIO()
    monkeypatch.setattr("sys.stderr", said)

    def second() -> None:
        with alone(tmp_path, "curate/0"):
            done.append("second")

    waiting = threading.Thread(target=second)
    with alone(tmp_path, "curate/0"):
        waiting.start()
        while "\n" not in said.getvalue() and waiting.is_alive():
            time.sleep(0.01)
        done.append("first")
    waiting.join()
    assert done == ["first", "second"]
    assert said.getvalue().startswith(f"curate/0: waits for process {os.getpid()} on ")
    assert said.getvalue().count("\n") == 1


def test_others_do_not_wait(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with alone(tmp_path, "curate/0"), alone(tmp_path, "curate/1"):
        assert sorted(p.name for p in tmp_path.rglob("*.lock")) == ["0.lock", "1.lock"]
    assert capsys.readouterr().err == ""


def test_a_file_system_without_locks_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with alone(tmp_path, "curate/0"):
        assert (tmp_path / "locks/curate/0.lock").exists()
