"""A run and its report, made once for all workers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_run import build, make_run


@pytest.fixture(scope="session")
def reports(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The report; the run lies beside it."""
    return once("report", lambda place: build(make_run(place), place / "reports")) / "reports"
