import numpy as np
import pytest

from distillery.data.conditions.segmentation import segmentation_map
from distillery.data.scenes.draw import draw_scene
from distillery.data.scenes.palette import CLASS_IDS
from distillery.metrics.miou import (
    VOID_COLOUR,
    label_colours,
    learned_segmenter,
    mean_iou,
    scenes_segmenter,
)


def test_mean_iou_against_a_confusion_matrix_and_without_void():
    seen, wanted = np.random.default_rng(1).integers(0, 4, (2, 5, 12, 12))
    seen[0] = wanted[0] = 2
    expected = [1.0]
    for a, b in zip(seen[1:], wanted[1:], strict=True):
        counts = np.bincount(4 * a.ravel() + b.ravel(), minlength=16).reshape(4, 4)
        both = counts.diagonal()
        expected.append((both / (counts.sum(0) + counts.sum(1) - both)).mean())
    np.testing.assert_allclose(mean_iou(seen, wanted), expected, rtol=1e-6)
    void = wanted.copy()
    void[:, :6] = 255
    np.testing.assert_allclose(mean_iou(seen, void), mean_iou(seen[:, 6:], wanted[:, 6:]))
    assert np.isnan(mean_iou(seen, np.full_like(wanted, 255))).all()


def test_a_class_that_is_only_seen_counts_as_zero():
    wanted, seen = np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int)
    seen[0, 0, 0] = 3
    assert mean_iou(seen, wanted)[0] == pytest.approx((15 / 16 + 0) / 2)


def test_scenes_are_labelled_by_the_reader_and_others_by_their_colours():
    scenes = [draw_scene(7, i) for i in range(6)]
    images = np.stack([scene.image for scene in scenes])
    maps = np.stack([segmentation_map(scene.segmentation) for scene in scenes])
    ious = scenes_segmenter().ious(images, maps)
    assert ious.mean() > 0.8
    assert scenes_segmenter().ious(images[::-1], maps).mean() < ious.mean() - 0.3
    assert (learned_segmenter("x", lambda image: image).ious(maps, maps) == 1).all()
    void = maps.copy()
    void[:, :32] = (224, 224, 192)
    assert (label_colours(void)[:, :32] == VOID_COLOUR).all()
    assert (learned_segmenter("x", lambda image: image).ious(maps, void) == 1).all()
    assert len(CLASS_IDS) == 7
