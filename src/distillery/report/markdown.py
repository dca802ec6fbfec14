"""Metrics as Markdown, for a README.

In: results. Out: a table as text. Not here: model cards (`cards`).
"""

from collections.abc import Mapping
from typing import Any

from distillery.families.names import label
from distillery.report import story
from distillery.report.evidence import Results

MILLION = 1e6


def markdown(results: Results, metrics: Mapping[str, str]) -> str:
    """A Markdown table of one run, for a README: {metric: column title}, values with intervals."""
    lines = [
        f"| model | U-Net parameters | {' | '.join(metrics.values())} |",
        "|---|---:|" + "---:|" * len(metrics),
    ]
    for variant in results.variants():
        cells = [_markdown_cell(results.metric(variant, name)) for name in metrics]
        size = results.metric(variant, "parameters_unet")
        count = f"{size['value'] / MILLION:.2f}M" if size else "—"
        lines.append(f"| {label(variant)} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown_cell(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return "—"
    return f"{story.estimate(metric)} ({story.interval(metric)})"
