"""Small data sets as fixtures."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_helpers import ROOT

from distillery.data.scenes.draw import draw_scene


@pytest.fixture(scope="session")
def scene_images() -> list[np.ndarray]:
    """200 drawn scenes of 64 px."""
    return [draw_scene(11, index, 64).image for index in range(200)]


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("DISTILLERY_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
    if not (folder / "00000.tar").is_file():
        pytest.skip(f"no real photos at {folder}; set DISTILLERY_PHOTOS")
    return folder
