"""Images judged on condition maps of several kinds."""

from dataclasses import replace

import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.conditions.sketch import sketch_map
from distillery.data.scenes.draw import draw_scene
from distillery.metrics import meters
from distillery.metrics.controlled import measure_control
from distillery.metrics.edges import EDGE_METRICS
from distillery.metrics.evaluation import Records
from distillery.metrics.features import load_extractor
from distillery.metrics.meter import Chunk, Tools
from distillery.metrics.miou import scenes_segmenter
from distillery.metrics.stream import Pass

CAPTIONS = ["a red circle"] * 6


@pytest.fixture(scope="module")
def tools(tiny_teacher) -> Tools:
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    return Tools(clip, clip, "", 200, 4, segmenter=scenes_segmenter())


class Drawn:
    """Maps of scenes whose keys are their places, all drawn as `kind` says, or each as its own."""

    def __init__(self, scenes: list) -> None:
        self._scenes = scenes

    def images(self, kind: str, keys: list[str]) -> np.ndarray:
        return np.stack([KINDS[kind].of(self._scenes[int(key)]) for key in keys])


@pytest.fixture(scope="module")
def scenes() -> list:
    return [draw_scene(3, i) for i in range(6)]


@pytest.fixture(scope="module")
def records(scenes: list) -> Records:
    images = np.stack([scene.image for scene in scenes])
    return Records([str(i) for i in range(6)], CAPTIONS, images, list(KINDS) * 2)


def test_every_kind_is_judged_on_its_own_images(tools: Tools, scenes: list, records: Records):
    places = {k: [i for i, own in enumerate(records.kinds) if own == k] for k in KINDS}
    measured, skipped = measure_control(tools, records.real, records, places, Drawn(scenes))
    assert skipped == {}
    for kind in KINDS.values():
        for name in meters.names_of(meters.of_group(kind.group)):
            estimate, settings = measured.pop(name)
            assert [i for i, v in enumerate(estimate.per_image) if v is not None] == places[
                kind.name
            ]
            assert estimate.n == 2
            assert settings["condition"] == kind.name
            if name == "edge_f1":
                assert estimate.value == 1
    assert measured == {}


def test_what_cannot_be_judged_says_why(tools: Tools, scenes: list, records: Records):
    without, drawn = replace(tools, segmenter=None), Drawn(scenes)
    everywhere = dict.fromkeys(KINDS, range(6))
    measured, skipped = measure_control(without, records.real, records, everywhere, drawn)
    assert "no segmenter" in skipped["miou"]
    assert "miou" not in measured
    only = {"canny": range(6)}
    measured, skipped = measure_control(without, records.real, records, only, drawn)
    assert set(measured) == set(EDGE_METRICS)
    assert "no image is judged on a sketch map" in skipped["sketch_clip_score"]
    with pytest.raises(DistilleryError, match="condition 'depth'"):
        measure_control(tools, records.real, records, {"depth": [0]}, drawn)


def test_sketches_are_scored_as_images(tools: Tools):
    images = np.stack([draw_scene(4, i).image for i in range(3)])
    drawn, captions = np.stack([sketch_map(image) for image in images]), ["a", "b", "c"]
    judged = Pass(3, meters.of_group("sketch"), tools)
    judged.take(Chunk(range(3), images, captions, maps=drawn))
    np.testing.assert_allclose(judged.columns["sketch_similarity"], 1, atol=1e-12)
    as_images = Pass(3, meters.of_images()[:1], tools)
    as_images.take(Chunk(range(3), drawn, captions))
    expected = as_images.columns["clip_score"]
    np.testing.assert_allclose(judged.columns["sketch_clip_score"], expected, rtol=1e-12)
