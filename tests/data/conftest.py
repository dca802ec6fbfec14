"""Small data sets as fixtures, and stages that start at once."""

import functools
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_helpers import ROOT

from distillery import stage
from distillery.data import inspector
from distillery.data.scenes.draw import draw_scene


@pytest.fixture(scope="module", autouse=True)
def ready_stages(request: pytest.FixtureRequest) -> Iterator[None]:
    """The code of a stage is looked at once; decoders fork from a process that has their imports.

    Else most of the time that a handful of pictures takes. `test_inspector` starts decoders as
    users do.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([inspector.__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "current_code", functools.cache(stage.current_code))
        if request.module.__name__ != "test_inspector":
            started = SimpleNamespace(get_context=lambda _: context)
            patch.setattr(inspector, "multiprocessing", started)
        yield


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
