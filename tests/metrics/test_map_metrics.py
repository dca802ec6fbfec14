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
from distillery.metrics.redrawn import drawer_of, map_distance, normal_angle
from distillery.metrics.stream import Pass

NUM = 2 * len(KINDS)
CAPTIONS = ["a red circle"] * NUM
OF_SCENES = {"depth": "scenes", "normal": "scenes", "softedge": "builtin", "sketch": "builtin",
             "segmentation": "builtin", "canny_low": 100, "canny_high": 200}  # fmt: skip
# Of images that are the scenes themselves; the reader misreads a few pixels of their rims.
EXPECTED = {"edge_f1": 1, "depth_distance": 0, "normal_angle": 0.8, "scribble_distance": 0,
            "softedge_distance": 0, "blur_distance": 0, "pose_distance": 0.2}  # fmt: skip


@pytest.fixture(scope="module")
def tools(tiny_teacher) -> Tools:
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    found = {name: drawer_of(kind, OF_SCENES, "cpu") for name, kind in KINDS.items()}
    drawers = {name: draw for name, draw in found.items() if draw is not None}
    assert set(KINDS) - set(drawers) == {"pose"}
    drawers["pose"] = np.zeros_like
    return Tools(clip, clip, "", 200, 4, segmenter=scenes_segmenter(), drawers=drawers)


class Drawn:
    """Maps of scenes whose keys are their places, all drawn as `kind` says, or each as its own."""

    def __init__(self, scenes: list) -> None:
        self._scenes = scenes

    def images(self, kind: str, keys: list[str]) -> np.ndarray:
        scenes = [self._scenes[int(key)] for key in keys]
        if kind == "pose":
            return np.stack([np.full_like(scene.image, 51) for scene in scenes])
        return np.stack([KINDS[kind].of(scene) for scene in scenes])


@pytest.fixture(scope="module")
def scenes() -> list:
    return [draw_scene(3, i) for i in range(NUM)]


@pytest.fixture(scope="module")
def records(scenes: list) -> Records:
    images = np.stack([scene.image for scene in scenes])
    return Records([str(i) for i in range(NUM)], CAPTIONS, images, list(KINDS) * 2)


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
            if name in EXPECTED:
                assert estimate.value == pytest.approx(EXPECTED[name], abs=0.05)
    assert measured == {}


def test_what_cannot_be_judged_says_why(tools: Tools, scenes: list, records: Records):
    without, drawn = replace(tools, segmenter=None), Drawn(scenes)
    everywhere = dict.fromkeys(KINDS, range(NUM))
    measured, skipped = measure_control(without, records.real, records, everywhere, drawn)
    assert "no segmenter" in skipped["miou"]
    assert "miou" not in measured
    undrawn = replace(without, drawers={})
    measured, skipped = measure_control(undrawn, records.real, records, everywhere, drawn)
    assert "nothing draws pose maps" in skipped["pose_distance"]
    assert "extract_conditions.depth to a model" in skipped["depth_distance"]
    only = {"canny": range(NUM)}
    measured, skipped = measure_control(without, records.real, records, only, drawn)
    assert set(measured) == set(EDGE_METRICS)
    assert "no image is judged on a sketch map" in skipped["sketch_clip_score"]
    with pytest.raises(DistilleryError, match="condition 'hue'"):
        measure_control(tools, records.real, records, {"hue": [0]}, drawn)


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


def test_maps_are_compared_in_the_range_of_networks_and_normals_by_their_angle():
    grey, flat = np.full((4, 5), 51, np.uint8), np.full((4, 5, 3), (128, 128, 255), np.uint8)
    assert map_distance(grey, np.zeros((4, 5, 3), np.uint8)) == pytest.approx(0.2)
    sideways = np.full((4, 5, 3), (255, 128, 128), np.uint8)
    assert normal_angle(flat, sideways) == pytest.approx(90, abs=0.5)
    assert normal_angle(flat, flat) == pytest.approx(0, abs=1e-3)
