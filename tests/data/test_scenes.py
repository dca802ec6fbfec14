"""The procedural scenes: determinism, layout, captions, segmentation and condition maps."""

import hashlib
import itertools

import cv2
import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.data.conditions.canny import canny_map
from distillery.data.conditions.segmentation import segmentation_ids, segmentation_map
from distillery.data.conditions.sketch import sketch_map
from distillery.data.scenes.draw import TEACHER_SEEDS, check_scene_seed, draw_scene
from distillery.data.scenes.palette import (
    BACKGROUND_COLOURS,
    CLASS_COLOURS,
    CLASS_IDS,
    CONTRASTING_COLOURS,
    OBJECT_COLOURS,
    SHAPES,
)
from distillery.metrics.reader import parse_caption


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(11, index) for index in range(200)]


def _digest(scene) -> str:
    data = scene.image.tobytes() + scene.segmentation.tobytes() + scene.caption.encode()
    return hashlib.sha256(data).hexdigest()


def test_a_scene_depends_on_seed_and_index_alone(scenes):
    assert _digest(draw_scene(11, 7)) == _digest(scenes[7])
    assert len({_digest(scene) for scene in scenes}) == len(scenes)
    assert _digest(draw_scene(12, 7)) != _digest(scenes[7])


def test_bytes_are_the_same_on_every_machine(scenes):
    digest = hashlib.sha256("".join(map(_digest, scenes)).encode()).hexdigest()
    assert digest == "a21efae1853ae26b27e843aa907a1b9ed352dae0cf7414e402440b4c38507cf1"


def test_segmentation_holds_each_object_inside_its_box(scenes):
    for scene in scenes:
        expected = {0} | {CLASS_IDS[item.shape] for item in scene.objects}
        assert set(np.unique(scene.segmentation)) == expected
        for item in scene.objects:
            left, top, right, bottom = item.box
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 64
            assert CLASS_IDS[item.shape] in scene.segmentation[top:bottom, left:right]


def test_captions_name_what_is_drawn(scenes):
    for scene in scenes:
        pairs, background = parse_caption(scene.caption)
        assert pairs == [(item.colour, item.shape) for item in scene.objects]
        assert background == scene.background


def test_relations_hold_in_the_picture(scenes):
    axes = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
    seen = set()
    for scene in scenes:
        for relation, (axis, sign) in axes.items():
            if f" {relation} " in scene.caption:
                first, second = (item.box[axis] + item.box[axis + 2] for item in scene.objects)
                assert sign * (second - first) > 0
                seen.add(relation)
    assert seen == set(axes)


def test_every_word_of_the_vocabulary_occurs():
    scenes = [draw_scene(13, index) for index in range(400)]
    assert {item.shape for s in scenes for item in s.objects} == set(SHAPES)
    assert {item.colour for s in scenes for item in s.objects} == set(OBJECT_COLOURS)
    assert {s.background.removesuffix(" gradient") for s in scenes} == set(BACKGROUND_COLOURS)


def test_colours_are_well_separated():
    rgb = np.array([list(OBJECT_COLOURS.values())], dtype=np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 30
    assert min(map(len, CONTRASTING_COLOURS.values())) >= 4


@pytest.mark.parametrize("size_px", [32, 128])
def test_other_sizes_show_the_same_scene(size_px):
    reference, scene = draw_scene(11, 3), draw_scene(11, 3, size_px)
    assert scene.image.shape == (size_px, size_px, 3)
    assert scene.caption == reference.caption
    resized = cv2.resize(scene.image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(resized.astype(int) - reference.image).mean() < 6


def test_reserved_and_negative_seeds_are_refused():
    for seed in (TEACHER_SEEDS.start, TEACHER_SEEDS.stop - 1, -1):
        with pytest.raises(DistilleryError, match="choose"):
            check_scene_seed(seed)
    check_scene_seed(0)
    check_scene_seed(TEACHER_SEEDS.stop)


def test_canny_finds_the_outline_of_every_object(scenes):
    for scene in scenes:
        edges = canny_map(scene.image)[:, :, 0] > 0
        for item in scene.objects:
            left, top, right, bottom = item.box
            found = edges[top:bottom, left:right].sum()
            assert found >= 0.5 * (right - left + bottom - top), scene.caption


def test_sketch_is_strong_at_edges_and_zero_on_plain_ground():
    image = np.full((64, 64, 3), 200, dtype=np.uint8)
    assert sketch_map(image).max() == 0
    image[:, 32:] = 20
    sketch = sketch_map(image)
    assert sketch.shape == image.shape
    assert sketch.dtype == np.uint8
    assert sketch[:, 31:33].min() > 128
    assert sketch[:, :28].max() == 0


def test_segmentation_colours_go_back_to_ids(scenes):
    assert len(set(CLASS_COLOURS)) == len(CLASS_IDS)
    ids = scenes[0].segmentation
    assert np.array_equal(segmentation_ids(segmentation_map(ids)), ids)
