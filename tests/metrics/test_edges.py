import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.data.conditions.canny import canny_map
from distillery.metrics.edges import EDGE_METRICS, edge_metrics, match_edges


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
