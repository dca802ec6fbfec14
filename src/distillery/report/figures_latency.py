"""Quality against measured latency: students of several rules and speeds in one picture.

In: results of a run, whose `profile` timed all of its models in turn. Out: SVG text, none where no
two U-Net students differ in latency. Students that are called alike but for a number at the end
(`planned_75`, `planned_50`) are one line. Not here: the look of charts (`look`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes

from distillery.families.names import label
from distillery.metrics.catalog import title_of
from distillery.report import labels, look
from distillery.report.evidence import Metric, Results
from distillery.report.prices import COSTS

FAMILY, TEACHER, PLANNED = "unet", "teacher", "unet/planned"
QUALITIES = ("prediction_distance", "reader_shape", "kid")
LOGARITHMIC = ("prediction_distance",)  # spans two orders of magnitude
MIN_RATIO = 1.1  # of the slowest student's latency to the fastest's
_NUMBERED = re.compile(r"(.+)_\d+")


@dataclass(frozen=True)
class Point:
    """A student: latency in milliseconds, quality, each with its interval."""

    variant: str
    latency: Metric
    quality: Metric


def latency_figures(results: Results) -> list[str]:
    """A chart for each quality that was measured; empty where latencies do not differ."""
    drawn = (_figure(results, quality) for quality in QUALITIES)
    return [drawing for drawing in drawn if drawing]


def _figure(results: Results, quality: str) -> str | None:
    points = _points(results, quality)
    times = [point.latency["value"] for point in points]
    if len(times) < 2 or max(times) < MIN_RATIO * min(times):
        return None
    teacher = results.metric(TEACHER, "latency_s")
    with mpl.rc_context(look.STYLE):
        figure, axis = look.plain_figure()
        groups = series(points)
        colours = look.colours_of(list(groups), PLANNED)
        for members, colour in zip(groups.values(), colours, strict=True):
            _draw(axis, members, colour)
        axis.set_title(title_of(quality))
        axis.grid(axis="y")
        if quality in LOGARITHMIC:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        ends = _labels(points)
        dense = 1e3 * teacher["value"] if teacher else None
        axis.set(xlabel=COSTS["latency_s"].axis, xlim=_room(points, ends, dense))
        if dense:
            _mark_teacher(axis, dense)
        look.fit_height(axis)
        labels.point_labels(axis, ends, _lines(points), colours)
        return look.to_svg(figure, f"{title_of(quality)} against latency")


def _points(results: Results, quality: str) -> list[Point]:
    found = []
    for variant in results.variants(FAMILY):
        latency, metric = results.metric(variant, "latency_s"), results.metric(variant, quality)
        if latency and metric:
            found.append(Point(variant, latency, metric))
    return found


def series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Students by what their names have in common, each from the fastest to the slowest."""
    groups: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: p.latency["value"]):
        numbered = _NUMBERED.fullmatch(point.variant)
        groups.setdefault(numbered[1] if numbered else point.variant, []).append(point)
    return groups


def _labels(points: Sequence[Point]) -> list[labels.Labelled]:
    """One for each series, at its slowest student."""
    return [
        (
            1e3 * members[-1].latency["value"],
            members[-1].quality["value"],
            label(name, FAMILY),
            name == PLANNED,
        )
        for name, members in series(points).items()
    ]


def _room(
    points: Sequence[Point], ends: Sequence[labels.Labelled], dense: float | None
) -> tuple[float, float]:
    """Limits between which all points, their labels and the teacher fit."""
    others = [1e3 * point.latency["value"] for point in points] + ([dense] if dense else [])
    return labels.room([*ends, *((time, 0.0, "", False) for time in others)])


def _draw(axis: Axes, members: Sequence[Point], colour: str) -> None:
    times = [1e3 * point.latency["value"] for point in members]
    values = [point.quality["value"] for point in members]
    axis.errorbar(
        times, values, _bars(values, [point.quality for point in members], 1.0),
        _bars(times, [point.latency for point in members], 1e3),
        fmt="o-", color=colour, ms=5, lw=1.2, elinewidth=1.0, capsize=0, zorder=4,
    )  # fmt: skip


def _bars(values: Sequence[float], metrics: Sequence[Metric], scale: float) -> list[list[float]]:
    """Lengths below and above; quartiles where the interval is that of fastest and slowest."""
    ends = [_ends(metric) for metric in metrics]
    return [
        [max(0.0, value - scale * low) for value, (low, _) in zip(values, ends, strict=True)],
        [max(0.0, scale * high - value) for value, (_, high) in zip(values, ends, strict=True)],
    ]


def _lines(points: Sequence[Point]) -> list[labels.Line]:
    """Everything that is drawn of the points: bars both ways, and what joins those of a rule."""
    lines = []
    for point in points:
        time, value = 1e3 * point.latency["value"], point.quality["value"]
        lines.append(((time, time), _ends(point.quality)))
        lines.append(([1e3 * end for end in _ends(point.latency)], (value, value)))
    for members in series(points).values():
        if len(members) > 1:
            times = [1e3 * member.latency["value"] for member in members]
            lines.append((times, [member.quality["value"] for member in members]))
    return lines


def _ends(metric: Metric) -> tuple[float, float]:
    low, high = metric["settings"].get("quartiles") or (metric["ci_low"], metric["ci_high"])
    return low, high


def _mark_teacher(axis: Axes, milliseconds: float) -> None:
    axis.axvline(milliseconds, color=look.MUTED, lw=0.8, ls=(0, (3, 3)), zorder=1)
    axis.annotate(
        "teacher", (milliseconds, 1), xycoords=("data", "axes fraction"), xytext=(-4, -4),
        textcoords="offset points", ha="right", va="top", fontsize=8.5, color=look.MUTED,
    )  # fmt: skip
