"""Charts as SVG that follow the page's colours, in light and in dark.

In: results. Out: SVG text to put into HTML. Matplotlib draws with placeholder colours that become
CSS variables, and with real text in the page's own font. Not here: what training left behind
(`figures_training`).
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.families import OFFSET
from distillery.families.names import label
from distillery.metrics.catalog import CATALOG, title_of
from distillery.report.evidence import Results

INK, MUTED, LINE, ACCENT, SECOND, PAPER = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606",
)  # fmt: skip
SERIES = ("#050505", "#0a0a0a", "#0b0b0b", "#0c0c0c", "#0d0d0d")  # lines of one chart
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", SECOND: "--second",
    PAPER: "--card", **{colour: f"--line-{i}" for i, colour in enumerate(SERIES[1:], 1)},
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "distillery", "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "text.color": INK, "xtick.color": MUTED,
    "ytick.color": MUTED, "axes.linewidth": 0.8, "xtick.major.size": 0, "ytick.major.size": 0,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titlecolor": INK,
    "grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True,
}  # fmt: skip
WIDTH_IN, HEIGHT_IN = 4.3, 3.5
MARGINS_IN = 0.5, 0.45, 0.12, 0.28  # left, bottom, right, top of one chart
LABEL_GAP_PT, LABEL_PT, LABEL_SHIFT_PT = 12.0, 9.5, 8.0
LABEL_WIDTH_EM = 0.6  # of a character, on average
LEADER = {
    "arrowstyle": "-", "color": LINE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4,
    "relpos": (0, 0.5),
}  # fmt: skip
COST_NAMES = {
    "parameters_total": "parameters of the pipeline, millions",
    "parameters_unet": "parameters of the U-Net, millions",
    "parameters_adapter": "parameters of the ControlNet, millions",
    "parameters_in_optimiser": "trained parameters, millions",
    "latency_s": "milliseconds per evaluation",
    "train_step_s": "milliseconds per training step",
    "train_memory_bytes": "memory in training, MB",
}
SCALES = {"parameters": 1e-6, "latency_s": 1e3, "train_step_s": 1e3,
          "train_memory_bytes": 1e-6}  # fmt: skip

Labelled = tuple[float, float, str, bool]  # x, y, label, whether it is the main one


def new_figure(width: float = WIDTH_IN, height: float = HEIGHT_IN, **layout: Any) -> tuple:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(squeeze=False, **layout)


def plain_figure() -> tuple[Figure, Axes]:
    """One chart with fixed margins: a page has tens of them, and looking for the best is slow."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
    left, bottom, right, top = MARGINS_IN
    figure.subplots_adjust(
        left / WIDTH_IN, bottom / HEIGHT_IN, 1 - right / WIDTH_IN, 1 - top / HEIGHT_IN
    )
    return figure, figure.subplots()


def to_svg(figure: Figure, title: str) -> str:
    """SVG text that scales to its container, with `title` for readers of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'font: ([\d.]+)px [^;"]*', r"font-size: \1px", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]+" height="[^"]+"|<svg (?=height)', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]+" ?', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?) width="[^"]+"', r"<svg \1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def quality_against_cost(
    results: Results,
    quality: str,
    cost: str,
    variants: Sequence[str],
    main: str | None,
    beside: tuple[str, str] | None = None,
) -> str | None:
    """A point per model with its interval, `main` in colour; None where fewer than two are
    measured. `beside`: a model, and the one whose costs are taken for it where they are known."""
    points = _points(results, quality, cost, variants, beside)
    if len(points) < 2:
        return None
    with mpl.rc_context(STYLE):
        figure, axis = plain_figure()
        for variant, x, metric in points:
            colour = ACCENT if variant == main else INK if "teacher" in variant else SECOND
            below, above = metric["value"] - metric["ci_low"], metric["ci_high"] - metric["value"]
            axis.errorbar(
                x, metric["value"], [[below], [above]], fmt="o", color=colour, ms=6, lw=1.4,
                ecolor=colour, capsize=0, zorder=4 if colour == ACCENT else 3,
            )  # fmt: skip
        family = (main or "").partition("/")[0]
        labelled = [(x, m["value"], label(v, family), v == main) for v, x, m in points]
        axis.set(xlabel=_title(cost), xlim=room(labelled))
        axis.set_title(_title(quality))
        axis.grid(axis="y")
        axis.margins(y=0.14)
        axis.autoscale_view()
        direct_labels(axis, labelled)
        title = f"{_title(quality)} against {_title(cost)}"
        return to_svg(figure, title)


def _title(name: str) -> str:
    """Of a metric or a cost, for an axis."""
    return title_of(name) if name in CATALOG else COST_NAMES.get(name, name)


def _points(
    results: Results,
    quality: str,
    cost: str,
    variants: Sequence[str],
    beside: tuple[str, str] | None,
) -> list[tuple[str, float, dict]]:
    scale = next((s for name, s in SCALES.items() if cost.startswith(name)), 1.0)
    points = []
    for variant in variants:
        metric, price = results.metric(variant, quality), results.metric(variant, cost)
        if beside and variant == beside[0]:
            price = results.metric(beside[1], cost) or price
        if metric and price and not variant.endswith(OFFSET):
            points.append((variant, price["value"] * scale, metric))
    return points


def room(points: Sequence[Labelled]) -> tuple[float, float]:
    """Limits between which every label fits right of its point."""
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    span = max(high - low, 0.1 * high)
    start = low - 0.12 * span
    width_pt = (WIDTH_IN - MARGINS_IN[0] - MARGINS_IN[2]) * 72
    ends = (
        (x - start) / (1 - (LABEL_SHIFT_PT + _label_width_pt(text)) / width_pt)
        for x, _, text, _ in points
    )
    return start, start + max(*ends, 1.24 * span)


def _label_width_pt(text: str) -> float:
    return LABEL_WIDTH_EM * LABEL_PT * len(text)


def direct_labels(
    axis: Axes, points: Sequence[Labelled], colours: Sequence[str] | None = None
) -> None:
    """Labels right of the points, spread where they would collide; the main ones in bold.

    A thin line leads to a label that had to move from its point. `colours`: those of the lines that
    end there. The page gives texts an outline of its own colour, so that no bar crosses them.
    """
    pixels = axis.transData.transform([point[:2] for point in points])
    x_pt, y_pt = (pixels[:, side] * 72 / axis.figure.dpi for side in (0, 1))
    for column in _columns(x_pt, [point[2] for point in points]):
        heights = spread([y_pt[i] for i in column], LABEL_GAP_PT)
        for index, height in zip(column, heights, strict=True):
            x, y, text, is_main = points[index]
            shift = height - y_pt[index]
            colour = colours[index] if colours else ACCENT if is_main else INK
            axis.annotate(
                text, (x, y), xytext=(LABEL_SHIFT_PT, shift), textcoords="offset points",
                va="center", fontsize=LABEL_PT, color=colour, zorder=6,
                weight="bold" if is_main else "normal",
                arrowprops=LEADER if abs(shift) > LABEL_GAP_PT / 2 else None,
            )  # fmt: skip


def _columns(x_pt: Sequence[float], texts: Sequence[str]) -> list[list[int]]:
    """Indices of points whose labels would run into each other sideways."""
    columns: list[list[int]] = []
    right_pt = -math.inf
    for index in sorted(range(len(x_pt)), key=lambda i: x_pt[i]):
        if x_pt[index] >= right_pt:
            columns.append([])
        columns[-1].append(index)
        right_pt = max(right_pt, x_pt[index] + _label_width_pt(texts[index]))
    return columns


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Nearest positions to `wanted` that are `gap` apart, in their order: groups that collide are
    merged around their mean."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []
    for index in order:
        groups.append((wanted[index], 1))
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], gap):
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    placed = [c + gap * (k - (n - 1) / 2) for c, n in groups for k in range(n)]
    return [position for _, position in sorted(zip(order, placed, strict=True))]


def _overlap(low: tuple[float, int], high: tuple[float, int], gap: float) -> bool:
    return high[0] - low[0] < gap * (low[1] + high[1]) / 2
