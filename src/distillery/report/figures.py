"""Quality against cost: a chart of a family's models.

In: results. Out: SVG text to put into HTML. Not here: the look of charts (`look`), where names
stand (`labels`), what training left behind (`figures_training`).
"""

from collections.abc import Sequence

import matplotlib as mpl

from distillery.families import OFFSET
from distillery.families.names import label
from distillery.metrics.catalog import CATALOG, title_of
from distillery.report import labels
from distillery.report.evidence import Results
from distillery.report.look import ACCENT, INK, SECOND, STYLE, fit_height, plain_figure, to_svg
from distillery.report.prices import COSTS


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
        axis.set(xlabel=_title(cost), xlim=labels.room(labelled))
        axis.set_title(_title(quality))
        axis.grid(axis="y")
        fit_height(axis)
        bars = [((x, x), (m["ci_low"], m["ci_high"])) for _, x, m in points]
        labels.point_labels(axis, labelled, bars)
        title = f"{_title(quality)} against {_title(cost)}"
        return to_svg(figure, title)


def _title(name: str) -> str:
    """Of a metric or a cost, for an axis."""
    return title_of(name) if name in CATALOG else COSTS[name].axis


def _points(
    results: Results,
    quality: str,
    cost: str,
    variants: Sequence[str],
    beside: tuple[str, str] | None,
) -> list[tuple[str, float, dict]]:
    points = []
    for variant in variants:
        metric, price = results.metric(variant, quality), results.metric(variant, cost)
        if beside and variant == beside[0]:
            price = results.metric(beside[1], cost) or price
        if metric and price and not variant.endswith(OFFSET):
            points.append((variant, price["value"] * COSTS[cost].scale, metric))
    return points
