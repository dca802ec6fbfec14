"""The rule-based reader: near-perfect on real scenes, and not fooled by wrong ones."""

import itertools

import cv2
import numpy as np
import pytest

from distillery.data.scenes.draw import draw_scene
from distillery.metrics.reader import (
    METRICS,
    parse_caption,
    read_scene,
    read_segmentation,
    recall,
)


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(21, index) for index in range(300)]


def test_recall_on_real_scenes(scenes):
    values = [recall(scene.image, scene.caption) for scene in scenes]
    for metric in METRICS:
        assert np.mean([value[metric] for value in values]) >= 0.97, metric


def test_recall_survives_jpeg_and_noise(scenes):
    rng = np.random.default_rng(0)
    values = []
    for scene in scenes[:100]:
        noisy = scene.image + rng.normal(0, 4, scene.image.shape)
        noisy = np.clip(noisy, 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", noisy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)[:, :, ::-1]
        values.append(recall(np.ascontiguousarray(image), scene.caption)["reader_pair"])
    assert np.mean(values) >= 0.9


def test_a_wrong_caption_is_at_chance(scenes):
    shifted = itertools.pairwise(scenes)
    values = [recall(scene.image, other.caption) for scene, other in shifted]
    assert np.mean([value["reader_pair"] for value in values]) < 0.1
    assert np.mean([value["reader_shape"] for value in values]) < 0.4


def test_asked_twice_has_to_be_seen_twice(scenes):
    scene = next(s for s in scenes if len(s.objects) == 1)
    item = scene.objects[0]
    caption = f"a {item.colour} {item.shape} above a {item.colour} {item.shape}"
    values = recall(scene.image, caption)
    assert values == {"reader_colour": 0.5, "reader_shape": 0.5, "reader_pair": 0.5,
                      "reader_background": None}  # fmt: skip


def test_other_captions_ask_for_nothing(scenes):
    assert set(recall(scenes[0].image, "a photo of a dog").values()) == {None}
    assert parse_caption("a red circle on a light blue gradient background") == (
        [("red", "circle")],
        "light blue gradient",
    )


def test_boxes_and_other_sizes(scenes):
    scene = next(s for s in scenes if len(s.objects) == 1)
    [item] = read_scene(scene.image).objects
    assert np.abs(np.subtract(item.box, scene.objects[0].box)).max() <= 1
    large = cv2.resize(scene.image, (256, 256), interpolation=cv2.INTER_CUBIC)
    assert recall(large, scene.caption)["reader_pair"] == 1.0


def test_an_empty_picture_shows_nothing():
    blank = np.full((64, 64, 3), 244, dtype=np.uint8)
    reading = read_scene(blank)
    assert reading.objects == ()
    assert reading.background == "white"
    assert recall(blank, "a large red circle on a white background")["reader_pair"] == 0.0


def test_segmentation_agrees_with_the_exact_one(scenes):
    single = [scene for scene in scenes if len(scene.objects) == 1][:50]
    for scene in single:
        shared = (read_segmentation(scene.image) == scene.segmentation).mean()
        assert shared > 0.95, scene.caption
