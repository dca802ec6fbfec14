"""Fixtures for tests that train."""

import pytest

from distillery.train import preview


@pytest.fixture(autouse=True)
def short_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of untrained students need no good sampling: it would take half of a training."""
    monkeypatch.setattr(preview, "NUM_STEPS", 1)
