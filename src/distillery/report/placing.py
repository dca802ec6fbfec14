"""Where the names of a chart's points stand: near their point, on nothing else.

In: points, sizes of their names, what else is drawn (a cloud of spots), the chart's bounds; all in
typographic points. Out: a box per name. Not here: text, drawing (`labels`).

Greedy, then improved one by one as in Christensen, Marks and Shieber (1995, "An Empirical Study of
Algorithms for Point-Feature Label Placement"): each name takes the cheapest of its positions, given
where the others stand. Charts of 20 points take 30 ms. The same input gives the same boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GAP_PT = 8.0  # from a point to its name
REACH_PT = 90.0  # how far a name may move up or down
STEP_PT = 3.0
FAR_PT = (0.0, 14.0, 30.0, 60.0)  # further sideways, with a line that leads there
PASSES, NUM_LEADER_SPOTS = 3, 9
# A spot, a nearer point of another, a line through a name, a name on a name, beyond the edge.
HIT, ASTRAY, CROSS, OVER, OUT = 3.0, 4.0, 8.0, 60.0, 1e4
PER_PT, LEFT, ABOVE = 0.12, 1.2, 0.6


@dataclass(frozen=True)
class Place:
    """A name's box: its lower left corner from its point, and the side of the box that the point
    is on, as shares of width and height."""

    x: float
    y: float
    side: tuple[float, float]


@dataclass(frozen=True)
class _Positions:
    """All boxes that a name may take: [m, 4] left, bottom, right, top, what each costs by itself,
    and spots [m, l, 2] of the line from its point."""

    boxes: np.ndarray
    leaders: np.ndarray
    sides: list[tuple[float, float]]
    cost: np.ndarray


def place(
    points: np.ndarray,
    sizes: np.ndarray,
    spots: np.ndarray,
    bounds: Sequence[float],
    first: Sequence[int] = (),
) -> list[Place]:
    """A box for each of `points` [n, 2] with a name of `sizes` [n, 2].

    `spots` [k, 2]: what a name should not cover; `bounds`: left, bottom, right, top that no name
    leaves while it can stand elsewhere; `first`: the points that choose before all others.
    """
    options = [_positions(index, points, size, spots, bounds) for index, size in enumerate(sizes)]
    chosen: dict[int, int] = {}
    free = sorted(range(len(points)), key=lambda i: (i not in first, -points[i, 1], i))
    for _ in range(PASSES):
        for index in free:
            others = [(options[i], c) for i, c in chosen.items() if i != index]
            chosen[index] = int(np.argmin(options[index].cost + _beside(options[index], others)))
    return [
        Place(*(options[i].boxes[c][:2] - points[i]), options[i].sides[c])
        for i, c in sorted(chosen.items())
    ]


def _positions(
    index: int, points: np.ndarray, size: np.ndarray, spots: np.ndarray, bounds: Sequence[float]
) -> _Positions:
    (x, y), (width, height) = points[index], size
    moves = np.arange(-REACH_PT, REACH_PT + STEP_PT, STEP_PT) // STEP_PT * STEP_PT
    corners, sides, cost = [], [], []
    for far in FAR_PT:
        for dy in moves:
            for side, left in ((0.0, x + GAP_PT + far), (1.0, x - GAP_PT - far - width)):
                corners.append((left, y + dy - height / 2))
                sides.append((side, 0.5))
                cost.append(PER_PT * (abs(dy) + far) + LEFT * side)
    for dy in moves[np.abs(moves) > GAP_PT]:
        corners.append((x - width / 2, y + dy - (0.0 if dy > 0 else height)))
        sides.append((0.5, 0.0 if dy > 0 else 1.0))
        cost.append(PER_PT * abs(dy) + ABOVE)
    low = np.array(corners)
    boxes = np.hstack([low, low + size])
    own = np.array(cost) + HIT * _hits(boxes, spots) + OUT * _leaves(boxes, bounds)
    others = np.delete(points, index, axis=0)
    ends = low + np.array(sides) * size
    steps = np.linspace(0, 1, NUM_LEADER_SPOTS)[None, :, None]
    leaders = points[index] + steps * (ends - points[index])[:, None]
    return _Positions(boxes, leaders, sides, own + ASTRAY * _astray(boxes, points[index], others))


def _beside(mine: _Positions, others: Sequence[tuple[_Positions, int]]) -> np.ndarray:
    """What each of my positions costs beside the names that stand: [m]."""
    cost = np.zeros(len(mine.boxes))
    for other, chosen in others:
        box, leader = other.boxes[chosen], other.leaders[chosen]
        overlaps = _overlap(mine.boxes.T, box)
        through = _is_inside(mine.leaders.T, box).any(axis=0)
        cost += OVER * overlaps + CROSS * (through | (_hits(mine.boxes, leader) > 0))
    return cost


def _hits(boxes: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """How many spots each box covers."""
    return np.count_nonzero(_is_inside(spots.T, boxes.T[:, :, None]), axis=1)


# An axis at a time: `all` over an axis of two takes most of a chart's time.
def _is_inside(spots: Sequence[np.ndarray], box: Sequence[np.ndarray]) -> np.ndarray:
    (x, y), (left, bottom, right, top) = spots, box
    return (x >= left) & (x <= right) & (y >= bottom) & (y <= top)


def _overlap(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
    (left, bottom, right, top), (a, b, c, d) = one, other
    return (left < c) & (right > a) & (bottom < d) & (top > b)


def _leaves(boxes: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """By how much each box is out of bounds."""
    low, high = np.array(bounds[:2]), np.array(bounds[2:])
    return (np.maximum(low - boxes[:, :2], 0) + np.maximum(boxes[:, 2:] - high, 0)).sum(axis=1)


def _astray(boxes: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether a box is nearer to another's point than to its own."""
    if not len(others):
        return np.zeros(len(boxes))
    nearest = np.min([_distance(boxes, point) for point in others], axis=0)
    return (nearest < _distance(boxes, own) - 0.5).astype(float)


def _distance(boxes: np.ndarray, point: np.ndarray) -> np.ndarray:
    away = np.maximum(np.maximum(boxes[:, :2] - point, point - boxes[:, 2:]), 0)
    return np.hypot(away[:, 0], away[:, 1])
