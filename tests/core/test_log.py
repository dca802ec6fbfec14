"""The errors of a run, as its front end says them last."""

from pathlib import Path

import pytest

from distillery.core.errors import DistilleryError
from distillery.core.log import errors_since, log_path, log_to


def _fail(work: Path, label: str, error: Exception) -> None:
    with pytest.raises(type(error)), log_to(log_path(work, label)):
        raise error


def test_the_last_words_of_failed_stages(tmp_path: Path) -> None:
    _fail(tmp_path, "curate/0", DistilleryError("a.csv:3: no name; give one\nb.csv: empty"))
    _fail(tmp_path, "ingest", ValueError("odd: 3"))
    with log_to(log_path(tmp_path, "deduplicate")):
        pass
    log = tmp_path / "logs/ingest.log"
    assert sorted(errors_since(tmp_path / "logs", 0)) == [
        "curate/0: a.csv:3: no name; give one",
        "curate/0: b.csv: empty",
        f"ingest: ValueError: odd: 3 (traceback: {log})",
    ]
    assert errors_since(tmp_path / "logs", log.stat().st_mtime + 1) == []
