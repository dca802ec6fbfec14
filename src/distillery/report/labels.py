"""Names in charts, beside what they name.

In: a chart with its data drawn and its limits set, points with their names. Out: texts in it; a
thin line leads to a name that had to move from its point. The page gives texts an outline of its
own colour, so that no bar crosses them. Not here: where a point's name fits best (`placing`).
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from distillery.report import placing
from distillery.report.look import ACCENT, INK, LINE, MARGINS_IN, MUTED, WIDTH_IN

LABEL_GAP_PT, LABEL_PT, LABEL_SHIFT_PT = 12.0, 9.5, 8.0
NAME_PT, BEARING_PT = 11.5, 2.0  # height of a line of text; what a text needs beside its letters
MARK_PT = 4.0  # half of a point's mark
SPOT_PT = 3.0  # between the spots that stand for a line
LEADER_PT = 11.0  # a name that is further from its point has a line to it

Labelled = tuple[float, float, str, bool]  # x, y, label, whether it is the main one
Line = tuple[Sequence[float], Sequence[float]]  # x, y of its corners


def room(points: Sequence[Labelled]) -> tuple[float, float]:
    """Limits between which every label fits right of its point."""
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    span = max(high - low, 0.1 * high)
    start = low - 0.12 * span
    width_pt = (WIDTH_IN - MARGINS_IN[0] - MARGINS_IN[2]) * 72
    ends = (
        (x - start) / (1 - (LABEL_SHIFT_PT + _width_pt(text, is_main)) / width_pt)
        for x, _, text, is_main in points
    )
    return start, start + max(*ends, 1.24 * span)


@functools.cache
def _width_pt(text: str, is_bold: bool) -> float:
    """In Matplotlib's own font, which is wider than those of the page."""
    if not text:
        return 0.0
    font = FontProperties(weight="bold" if is_bold else "normal")
    return TextPath((0, 0), text, size=LABEL_PT, prop=font).get_extents().width + BEARING_PT


def point_labels(
    axis: Axes,
    points: Sequence[Labelled],
    lines: Sequence[Line] = (),
    colours: Sequence[str] | None = None,
) -> None:
    """A name near each point, on no other name, and on points and `lines` as little as may be."""
    at = _points_pt(axis, [point[:2] for point in points])
    sizes = np.array([(_width_pt(text, is_main), NAME_PT) for _, _, text, is_main in points])
    spots = np.concatenate([_marks(at), *(_spots(axis, line) for line in lines)])
    corners = axis.transAxes.transform([(0, 0), (1, 1)]) * 72 / axis.figure.dpi
    main = [i for i, point in enumerate(points) if point[3]]
    places = placing.place(at, sizes, spots, corners.ravel(), main)
    for index, (x, y, text, is_main) in enumerate(points):
        box, (width, height) = places[index], sizes[index]
        toward = box.x + width * box.side[0], box.y + height * box.side[1]
        leader = {
            "arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": MARK_PT,
            "relpos": box.side,
        }  # fmt: skip
        axis.annotate(
            text, (x, y), xytext=(box.x, box.y + height / 2), textcoords="offset points",
            va="center", fontsize=LABEL_PT, zorder=6, weight="bold" if is_main else "normal",
            color=colours[index] if colours else ACCENT if is_main else INK,
            arrowprops=leader if np.hypot(*toward) > LEADER_PT else None,
        )  # fmt: skip


def _points_pt(axis: Axes, points: Sequence[Sequence[float]]) -> np.ndarray:
    """[n, 2] of data as they lie on the paper."""
    return axis.transData.transform(points) * 72 / axis.figure.dpi


def _marks(at: np.ndarray) -> np.ndarray:
    """Nine spots for each point's mark: more than a line has that crosses a name."""
    steps = np.array([-MARK_PT, 0.0, MARK_PT])
    square = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return (at[:, None] + square).reshape(-1, 2)


def _spots(axis: Axes, line: Line) -> np.ndarray:
    """Spots along a line."""
    corners = _points_pt(axis, list(zip(*line, strict=True)))
    parts = [
        np.linspace(a, b, max(2, int(np.hypot(*(b - a)) / SPOT_PT)))
        for a, b in itertools.pairwise(corners)
    ]
    return np.concatenate(parts)


def end_labels(axis: Axes, points: Sequence[Labelled], colours: Sequence[str]) -> None:
    """Names right of the ends of lines, spread where they would collide; the main one in bold."""
    heights_pt = _points_pt(axis, [point[:2] for point in points])[:, 1]
    places = spread(list(heights_pt), LABEL_GAP_PT)
    leader = {
        "arrowstyle": "-", "color": LINE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": MARK_PT,
        "relpos": (0, 0.5),
    }  # fmt: skip
    for index, (x, y, text, is_main) in enumerate(points):
        shift = places[index] - heights_pt[index]
        axis.annotate(
            text, (x, y), xytext=(LABEL_SHIFT_PT, shift), textcoords="offset points",
            va="center", fontsize=LABEL_PT, color=colours[index], zorder=6,
            weight="bold" if is_main else "normal",
            arrowprops=leader if abs(shift) > LABEL_GAP_PT / 2 else None,
        )  # fmt: skip


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Nearest positions to `wanted` that are `gap` apart, in their order: groups that collide are
    merged around their mean."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []
    for index in order:
        groups.append((wanted[index], 1))
        while len(groups) > 1 and _collide(groups[-2], groups[-1], gap):
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    placed = [c + gap * (k - (n - 1) / 2) for c, n in groups for k in range(n)]
    return [position for _, position in sorted(zip(order, placed, strict=True))]


def _collide(low: tuple[float, int], high: tuple[float, int], gap: float) -> bool:
    return high[0] - low[0] < gap * (low[1] + high[1]) / 2
