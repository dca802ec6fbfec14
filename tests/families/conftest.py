"""Fixtures for tests that train."""

from collections.abc import Iterator

import pytest

from distillery.train import preview


@pytest.fixture(autouse=True, scope="module")
def short_previews() -> Iterator[None]:
    """Pictures of untrained students need no good sampling: it would take half of a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview, "NUM_STEPS", 1)
        patch.setattr(preview, "NUM_PROMPTS", 2)
        yield
