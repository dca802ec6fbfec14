"""Names in charts stand near what they name, and on nothing else."""

import numpy as np
import pytest

from distillery.report.labels import spread
from distillery.report.placing import GAP_PT, place

BOUNDS = (0.0, 0.0, 260.0, 200.0)


def boxes_of(points, sizes, spots=None, first=()):
    """[n, 4] left, bottom, right, top of the names."""
    spots = np.repeat(points, 9, axis=0) if spots is None else spots
    places = place(points, sizes, spots, BOUNDS, first)
    low = points + np.array([(one.x, one.y) for one in places])
    return np.hstack([low, low + sizes])


def overlap(a, b):
    return ((a[:2] < b[2:]) & (a[2:] > b[:2])).all()


@pytest.mark.parametrize("seed", range(6))
def test_names_of_a_crowd_do_not_touch_one_another_nor_a_point(seed):
    rng = np.random.default_rng(seed)
    points = np.vstack([rng.normal((60, 90), 14, (7, 2)), rng.uniform(20, 180, (3, 2))])
    sizes = np.column_stack([rng.uniform(30, 100, 10), np.full(10, 9.5)])
    boxes = boxes_of(points, sizes)
    for i, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in boxes[i + 1 :])
        assert not ((points > box[:2]) & (points < box[2:])).all(axis=1).any()
        assert (box[:2] >= BOUNDS[:2]).all()
        assert (box[2:] <= BOUNDS[2:]).all()


def test_a_name_without_neighbours_stands_right_of_its_point_level_with_it():
    (box,) = boxes_of(np.array([[50.0, 50.0]]), np.array([[40.0, 10.0]]))
    assert box.tolist() == [50 + GAP_PT, 45, 90 + GAP_PT, 55]


def test_a_name_at_the_right_edge_stands_left_of_its_point():
    (box,) = boxes_of(np.array([[250.0, 50.0]]), np.array([[40.0, 10.0]]))
    assert box[2] == 250 - GAP_PT


def test_points_at_one_place_have_their_names_one_above_the_other():
    points, sizes = np.array([[50.0, 50.0]] * 3), np.array([[40.0, 10.0]] * 3)
    boxes = boxes_of(points, sizes, first=[1])
    assert abs(boxes[1][1] - 45) == 0  # the main one has the best place
    assert not any(overlap(boxes[a], boxes[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_line_to_a_name_goes_through_no_other_name():
    points = np.array([[50.0, 100.0 - 6 * i] for i in range(6)])
    sizes = np.array([[70.0, 11.5]] * 6)
    places = place(points, sizes, np.repeat(points, 9, axis=0), BOUNDS)
    boxes = boxes_of(points, sizes)
    for i, one in enumerate(places):
        end = boxes[i, :2] + np.array(one.side) * sizes[i]
        along = points[i] + np.linspace(0, 1, 20)[:, None] * (end - points[i])
        for j in set(range(6)) - {i}:
            assert not ((along > boxes[j, :2]) & (along < boxes[j, 2:])).all(axis=1).any()


def test_a_name_avoids_a_line():
    points, sizes = np.array([[50.0, 50.0]]), np.array([[40.0, 10.0]])
    line = np.column_stack([np.linspace(58, 100, 15), np.full(15, 50.0)])
    (box,) = boxes_of(points, sizes, spots=line)
    assert box[1] > 50 or box[3] < 50 or box[2] < 50


def test_ends_of_lines_keep_their_order_and_distance():
    placed = spread([5.0, 0.0, 0.5, 40.0], 10)
    assert placed[3] == 40
    low, middle, high = sorted(placed[:3])
    assert (middle - low, high - middle) == (10, 10)
    assert placed[1] < placed[2] < placed[0]
