"""Charts as SVG that follow the page's colours, in light and in dark.

In: results, training histories, layer reports. Out: SVG text to put into HTML. Matplotlib draws
with placeholder colours that become CSS variables, and with real text in the page's own font.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.report.evidence import Results, label

INK, MUTED, LINE, ACCENT, SECOND, PAPER = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606",
)  # fmt: skip
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", SECOND: "--second",
    PAPER: "--card",
}  # fmt: skip
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "distillery", "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "text.color": INK, "xtick.color": MUTED,
    "ytick.color": MUTED, "axes.linewidth": 0.8, "xtick.major.size": 0, "ytick.major.size": 0,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titlecolor": INK,
    "grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True,
}  # fmt: skip
WIDTH_IN, HEIGHT_IN = 4.3, 3.5
LABEL_GAP_PT, LABEL_WIDTH_PT = 12.0, 100.0
MIN_TICK_SHARE = 0.03
METRIC_NAMES = {
    "reader_shape": "shapes drawn as asked (recall)",
    "reader_colour": "colours as asked (recall)",
    "kid": "KID to real images (lower is better)",
    "clip_score": "CLIP score",
    "prediction_distance": "distance to the teacher's prediction",
    "parameters_total": "parameters of the pipeline, millions",
    "latency_s": "seconds per U-Net evaluation",
}


def _figure(width: float = WIDTH_IN, height: float = HEIGHT_IN, **layout: Any) -> tuple:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(squeeze=False, **layout)


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


def quality_against_cost(results: Results, quality: str, cost: str) -> str | None:
    """A point per model with its interval; None where either is not measured."""
    points = _points(results, quality, cost)
    if len(points) < 2:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        axis = axes[0, 0]
        for variant, x, metric in points:
            colour = ACCENT if variant == "unet/elr" else INK if "teacher" in variant else SECOND
            below, above = metric["value"] - metric["ci_low"], metric["ci_high"] - metric["value"]
            axis.errorbar(
                x, metric["value"], [[below], [above]], fmt="o", color=colour, ms=6, lw=1.4,
                ecolor=colour, capsize=0, zorder=4 if colour == ACCENT else 3,
            )  # fmt: skip
        axis.set(xlabel=METRIC_NAMES[cost], title=METRIC_NAMES[quality], xlim=_room(points))
        axis.grid(axis="y")
        axis.margins(y=0.14)
        figure.draw_without_rendering()
        _direct_labels(axis, [(x, m["value"], label(v)) for v, x, m in points])
        return to_svg(figure, f"{METRIC_NAMES[quality]} against {METRIC_NAMES[cost]}")


def _points(results: Results, quality: str, cost: str) -> list[tuple[str, float, dict]]:
    scale = 1e-6 if cost.startswith("parameters") else 1.0
    found = []
    for variant in results.variants():
        if variant in ("teacher/unguided", "teacher/guided_offset"):
            continue
        metric, price = results.metric(variant, quality), results.metric(variant, cost)
        if metric and price:
            found.append((variant, price["value"] * scale, metric))
    return found


def _room(points: Sequence[tuple]) -> tuple[float, float]:
    """Limits that leave the right third for labels."""
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    span = max(high - low, 0.1 * high)
    return low - 0.12 * span, high + 0.62 * span


def _direct_labels(axis: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Labels right of the points, spread within each column of points."""
    pixels = axis.transData.transform([(x, y) for x, y, _ in points])
    scale = 72 / axis.figure.dpi
    for column in _columns(pixels[:, 0] * scale):
        heights = spread([pixels[i][1] * scale for i in column], LABEL_GAP_PT)
        for index, height in zip(column, heights, strict=True):
            x, y, text = points[index]
            is_main = text == label("unet/elr")
            axis.annotate(
                text, (x, y), xytext=(8, height - pixels[index][1] * scale),
                textcoords="offset points", va="center", fontsize=9.5,
                color=ACCENT if is_main else INK, weight="bold" if is_main else "normal",
            )  # fmt: skip


def _columns(positions: Sequence[float]) -> list[list[int]]:
    """Indices of points whose labels would run into each other sideways."""
    columns: list[list[int]] = []
    for index in sorted(range(len(positions)), key=lambda i: positions[i]):
        if columns and positions[index] - positions[columns[-1][0]] < LABEL_WIDTH_PT:
            columns[-1].append(index)
        else:
            columns.append([index])
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


def training_curves(histories: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Loss over steps, a panel per objective: training thin, validation thick.

    `histories`: {variant: training.json}; losses of different objectives can't be compared.
    """
    groups: dict[str, list[str]] = {}
    for variant, training in histories.items():
        if any(seed["train"] for seed in _seeds(training)):
            groups.setdefault(training["settings"]["objective"], []).append(variant)
    if not groups:
        return None
    names = {"teacher": "distillation loss", "noise": "diffusion loss"}
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(width=6.4, height=2.7 * len(groups), nrows=len(groups))
        for axis, (objective, variants) in zip(axes[:, 0], sorted(groups.items()), strict=True):
            ends = [_draw_curves(axis, v, histories[v]) for v in variants]
            axis.set(title=names.get(objective, objective), yscale="log")
            axis.grid(axis="y")
            axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            axis.margins(y=0.12)
            last_step = max(x for x, _, _ in ends)
            axis.set_xlim(0, 1.55 * max(last_step, 1))
            axis.xaxis.set_major_locator(mpl.ticker.FixedLocator(_steps(last_step)))
            figure.draw_without_rendering()
            _direct_labels(axis, ends)
        axes[-1, 0].set_xlabel("steps")
        return to_svg(figure, "training and validation loss over steps")


def _steps(last: int) -> list[float]:
    """Ticks up to the last step: beyond it there is room for labels only."""
    return [t for t in mpl.ticker.MaxNLocator(5).tick_values(0, max(last, 1)) if t <= last]


def _seeds(training: Mapping[str, Any]) -> list[dict[str, list]]:
    return [{"train": [], "val": []} | seed for seed in training["seeds"].values()]


def _draw_curves(axis: Axes, variant: str, training: Mapping[str, Any]) -> tuple:
    colour = ACCENT if variant == "unet/elr" else SECOND
    end = (0.0, 1.0)
    for seed in _seeds(training):
        for phase, style in (("train", {"lw": 0.7, "alpha": 0.45}), ("val", {"lw": 2.0})):
            points = [(entry["step"], entry["loss"]) for entry in seed[phase]]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, **style)
                end = (max(end[0], points[-1][0]), points[-1][1])
    return (*end, label(variant))


def layer_map(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Per decomposed layer, in the network's order: the SVD's error, and its rank."""
    if not layers:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(width=9.2, height=4.0, nrows=2, sharex=True)
        layers = sorted(layers, key=lambda layer: _depth(layer["name"]))
        places = range(len(layers))
        colours = [
            ACCENT if layer["kind"].lower().startswith("conv") else SECOND for layer in layers
        ]
        top, bottom = axes[:, 0]
        top.vlines(places, 0, [layer["relative_error"] for layer in layers], color=colours, lw=2)
        top.set(title="error of the truncated weight, relative to its norm", ylim=(0, None))
        full = [layer["full_rank"] for layer in layers]
        bottom.bar(places, full, color=LINE, width=0.8)
        bottom.bar(places, [layer["rank"] for layer in layers], color=colours, width=0.8)
        bottom.set(title="rank kept, of the full rank", xlim=(-1, len(layers)))
        for axis in (top, bottom):
            axis.grid(axis="y")
        ticks = _block_starts([layer["name"] for layer in layers])
        bottom.set_xticks(list(ticks.values()), list(ticks), ha="left", fontsize=9)
        return to_svg(figure, "error and rank of every decomposed layer")


def _depth(name: str) -> int:
    """Order of computation: diffusers lists the decoder before the middle."""
    order = ("time", "down", "mid", "up")
    return next((i for i, start in enumerate(order) if name.startswith(start)), -1)


def _block_starts(names: Sequence[str]) -> dict[str, int]:
    """{block: index of its first layer}, as tick labels; blocks too short for one have none."""
    starts: dict[str, int] = {}
    for index, name in enumerate(names):
        parts = name.split(".")
        numbered = len(parts) > 1 and parts[1].isdigit()
        block = f"{parts[0].removesuffix('_blocks')} {parts[1]}" if numbered else parts[0]
        starts.setdefault(block.replace("_block", "").replace("_embedding", ""), index)
    ends = [*list(starts.values())[1:], len(names)]
    room = len(names) * MIN_TICK_SHARE
    return {n: i for (n, i), end in zip(starts.items(), ends, strict=True) if end - i >= room}
