"""The errors of a run, as its front end says them last."""

import logging
import sys
import time
import warnings
from pathlib import Path

import pytest

from distillery.core import log as log_module
from distillery.core.errors import DistilleryError
from distillery.core.log import errors_since, log_path, log_to


def _fail(work: Path, label: str, error: Exception) -> None:
    with pytest.raises(type(error)), log_to(log_path(work, label), label):
        raise error


def test_the_last_words_of_failed_stages(tmp_path: Path) -> None:
    _fail(tmp_path, "curate/0", DistilleryError("a.csv:3: no name; give one\nb.csv: empty"))
    _fail(tmp_path, "ingest", ValueError("odd: 3"))
    with log_to(log_path(tmp_path, "deduplicate"), "deduplicate"):
        pass
    log = tmp_path / "logs/ingest.log"
    assert sorted(errors_since(tmp_path / "logs", 0)) == [
        "curate/0: a.csv:3: no name; give one",
        "curate/0: b.csv: empty",
        f"ingest: ValueError: odd: 3 (traceback: {log})",
    ]
    assert errors_since(tmp_path / "logs", log.stat().st_mtime + 1) == []


def test_every_line_names_its_stage(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = log_path(tmp_path, "generate/unet/x")
    with log_to(path, "generate/unet/x"):
        print("a", "b", file=sys.stderr)
        print("generate/unet/x: 1/2", file=sys.stderr)
        print("two\nlines\n", file=sys.stderr)
        sys.stderr.write("\r  10%|#")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("odd", stacklevel=1)
        logging.lastResort.handle(logging.makeLogRecord({"msg": "adapted", "levelno": 30}))
    said = capsys.readouterr().err
    kept = path.read_text()
    assert said.replace("\r  10%|#\n", "") == kept  # a bar is left where a line comes between
    lines = [line for line in kept.splitlines() if line]
    assert lines[:4] == [
        "generate/unet/x: a b",
        "generate/unet/x: 1/2",
        "generate/unet/x: two",
        "generate/unet/x: lines",
    ]
    assert all(line.startswith("generate/unet/x: ") for line in lines)
    assert lines[-1] == "generate/unet/x: adapted"


def test_a_redrawn_bar_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    path = log_path(tmp_path, "ingest")
    with log_to(path, "ingest"):
        for part in ("started\n", "\r  10%|#", "\r 100%|##", "\n", "done\n"):
            sys.stderr.write(part)
    assert path.read_text() == "ingest: started\ningest: done\n"


def test_long_work_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SILENCE_S", 0.1)
    with log_to(log_path(tmp_path, "init_student/svd"), "init_student/svd"):
        time.sleep(0.5)
    said = log_path(tmp_path, "init_student/svd").read_text().splitlines()
    assert 1 < len(said) < 6
    assert set(said) == {"init_student/svd: still running after 0 min"}
