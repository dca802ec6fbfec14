"""The look of all charts: SVG that follows the page's colours, in light and in dark.

In: figures of Matplotlib, drawn with the colours here. Out: SVG text to put into HTML: placeholder
colours become CSS variables, and text stays text, in the page's own font. Not here: what is drawn
(`figures`), where names stand (`labels`).
"""

import io
import re
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def fit_height(axis: Axes) -> None:
    """Leave room above and below the data; of one share for all models show the whole scale."""
    axis.margins(y=0.14)
    axis.autoscale_view()
    low, high = axis.dataLim.intervaly
    if low == high and 0 <= low <= 1:
        axis.set_ylim(-0.04, 1.04)


def colours_of(lines: Sequence[str], main: str | None) -> list[str]:
    """The main line of a chart in the page's own colour, the others each in one of theirs."""
    others = cycle(SERIES)
    return [ACCENT if line == main else next(others) for line in lines]


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
