import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.data.conditions.canny import canny_map
from distillery.data.conditions.segmentation import segmentation_map
from distillery.data.scenes.draw import draw_scene
from distillery.data.scenes.palette import CLASS_IDS
from distillery.metrics.conditioned import learned_segmenter, measure_control, scenes_segmenter
from distillery.metrics.control import (
    EDGE_METRICS,
    KINDS,
    NAMES,
    VOID_COLOUR,
    edge_metrics,
    label_colours,
    match_edges,
    mean_iou,
)
from distillery.metrics.features import load_extractor
from distillery.metrics.measure import Measure


def _square(side: int, start: int = 12) -> np.ndarray:
    image = np.zeros((48, 48, 3), dtype=np.uint8)
    image[start : start + side, start : start + side] = 255
    return image


def _map(image: np.ndarray) -> np.ndarray:
    return canny_map(image)[:, :, 0] / 255


def test_an_image_that_follows_its_map_is_perfect():
    images = np.stack([_square(20), _square(8)])
    found = edge_metrics(images, np.stack([_map(image) for image in images]))
    assert set(found) == set(EDGE_METRICS)
    assert found["edge_nmse"].tolist() == found["edge_nmse_symmetric"].tolist() == [0, 0]
    assert all(found[f"edge_{name}"].tolist() == [1, 1] for name in ("f1", "precision", "recall"))


def test_an_empty_prediction_scores_one_and_thirty_percent_recall_scores_worse():
    """The plain form's flaw: nothing at all beats three tenths of the edges in the right place."""
    wanted = np.zeros((1, 48, 48))
    wanted[0, 10] = 1
    found = edge_metrics(np.zeros((1, 48, 48, 3), dtype=np.uint8), wanted)
    assert [float(found[name][0]) for name in EDGE_METRICS] == [1, 1, 0, 0, 0]
    partly = np.zeros((48, 48), dtype=bool)
    partly[10, :14] = partly[30, :36] = True
    assert ((partly - wanted[0]) ** 2).sum() / wanted.sum() > 1
    assert match_edges(partly, wanted[0] > 0)[2] == pytest.approx(15 / 48)


def test_edge_metrics_against_a_computation_pixel_by_pixel():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    wanted = (generator.random((3, 24, 24)) < 0.1).astype(float)
    found = edge_metrics(images, wanted)
    for i, (image, map_) in enumerate(zip(images, wanted, strict=True)):
        edges = _map(image)

        def near(a, b):
            hits = [
                b[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any() for y, x in np.argwhere(a)
            ]
            return sum(hits) / len(hits)

        precision, recall = near(edges, map_), near(map_, edges)
        error = np.square(edges - map_).sum()
        expected = {
            "edge_nmse": error / map_.sum(),
            "edge_nmse_symmetric": error / (map_.sum() + edges.sum()),
            "edge_f1": 2 / (1 / precision + 1 / recall),
            "edge_precision": precision,
            "edge_recall": recall,
        }
        assert {name: found[name][i] for name in EDGE_METRICS} == pytest.approx(expected)


def test_edges_one_pixel_off_count_for_f1_and_not_for_nmse():
    found = edge_metrics(_square(20, 13)[None], _map(_square(20))[None])
    assert found["edge_f1"][0] == pytest.approx(1)
    assert found["edge_nmse"][0] > 1


def test_empty_maps_have_no_value():
    found = edge_metrics(_square(20)[None], np.zeros((1, 48, 48)))
    assert all(np.isnan(values).all() for values in found.values())


def test_a_wrong_range_or_size_of_maps_is_an_error():
    image = _square(20)[None]
    with pytest.raises(DistilleryError, match=r"\[0, 1\] is due"):
        edge_metrics(image, 255 * _map(image[0])[None])
    with pytest.raises(DistilleryError, match="8-bit integers"):
        edge_metrics(image / 255, _map(image[0])[None])
    with pytest.raises(DistilleryError, match="differ in size"):
        edge_metrics(image, np.zeros((1, 24, 24)))


def test_mean_iou_against_a_confusion_matrix_and_without_void():
    seen, wanted = np.random.default_rng(1).integers(0, 4, (2, 5, 12, 12))
    seen[0] = wanted[0] = 2
    expected = [1.0]
    for a, b in zip(seen[1:], wanted[1:], strict=True):
        counts = np.bincount(4 * a.ravel() + b.ravel(), minlength=16).reshape(4, 4)
        both = counts.diagonal()
        expected.append((both / (counts.sum(0) + counts.sum(1) - both)).mean())
    np.testing.assert_allclose(mean_iou(seen, wanted), expected, atol=1e-12)
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


@pytest.fixture(scope="module")
def measure(tiny_teacher) -> Measure:
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    return Measure(clip, clip, "", 200, 4)


def test_every_kind_is_judged_on_its_own_images(measure: Measure):
    scenes = [draw_scene(3, i) for i in range(6)]
    images = np.stack([scene.image for scene in scenes])
    kinds = ["canny", "sketch", "segmentation"] * 2

    def maps(kind: str, index: list[int]) -> np.ndarray:
        draw = {"segmentation": lambda s: segmentation_map(s.segmentation)}
        return np.stack([draw.get(kind, lambda s: canny_map(s.image))(scenes[i]) for i in index])

    captions = ["a red circle"] * 6
    places = {kind: [i for i, own in enumerate(kinds) if own == kind] for kind in KINDS}
    found, skipped = measure_control(measure, images, captions, places, maps, scenes_segmenter())
    assert skipped == {}
    assert set(found) == {name for names in NAMES.values() for name in names}
    for kind, names in NAMES.items():
        for name in names:
            estimate, settings = found[name]
            measured = [i for i, value in enumerate(estimate.per_image) if value is not None]
            assert measured == places[kind]
            assert estimate.n == 2
            assert settings["condition"] == kind
    assert found["edge_f1"][0].value == 1
    found, skipped = measure_control(measure, images, captions, places, maps, None)
    assert "no segmenter" in skipped["miou"]
    assert "miou" not in found
    found, skipped = measure_control(measure, images, captions, {"canny": range(6)}, maps, None)
    assert set(found) == set(EDGE_METRICS)
    assert "no image is judged on a sketch map" in skipped["sketch_clip_score"]


def test_sketches_are_scored_as_images(measure: Measure):
    from distillery.data.conditions.sketch import sketch_map

    images = np.stack([draw_scene(4, i).image for i in range(3)])
    drawn = np.stack([sketch_map(image) for image in images])
    found, _ = measure_control(
        measure, images, ["a", "b", "c"], {"sketch": [0, 1, 2]}, lambda kind, index: drawn, None
    )
    np.testing.assert_allclose(found["sketch_similarity"][0].per_image, 1, atol=1e-12)
    expected = measure.text(drawn, ["a", "b", "c"])["clip_score"][0]
    assert found["sketch_clip_score"][0].per_image == pytest.approx(expected.per_image)
    with pytest.raises(DistilleryError, match="condition 'depth'"):
        measure_control(measure, images, ["a"] * 3, {"depth": [0]}, lambda *a: drawn, None)
