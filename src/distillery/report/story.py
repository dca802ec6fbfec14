"""Numbers in words: how many digits an estimate deserves, its interval, costs with their units.

In: metrics. Out: text. Not here: which metrics (`headline`, `sections`), layout.
"""

import math
from collections.abc import Mapping
from typing import Any

from distillery.core.sizes import in_bytes
from distillery.metrics.catalog import base_of
from distillery.metrics.shape_probe import describe
from distillery.report.evidence import Results

TINY = 5e-5
# Intervals of FID and KID come from 16 blocks of the images by default: with less than two images
# for each, chance moves the distance by more than students differ.
FEW = 32
_OF_BLOCKS = ("jackknife over image blocks", "disjoint subsets")
_OF_SETS = ("fid", "fid_extrapolated", "kid")


def probe_line(results: Results) -> str:
    """A sentence about the teacher's CLIP, where CLIP scores come from it; "" elsewhere."""
    scores = (results.metric(variant, "clip_score") for variant in results.variants())
    settings = next((metric["settings"] for metric in scores if metric), {})
    probe = describe(settings)
    return f"Scores of {settings['extractor']}: {probe}." if probe else ""


def change(share: float) -> str:
    """A share as a signed percentage: `−56%`, `+4%`, `±0%`."""
    return f"{share:+.0%}".replace("-", "−") if round(share, 2) else "±0%"


def pretty(quantity: str, metric: Mapping[str, Any]) -> str:
    """A cost with its unit."""
    if quantity.endswith("_s"):
        return f"{number(1000 * metric['value'])} ms"
    return in_bytes(metric["value"]) if "bytes" in quantity else si(metric["value"])


def si(value: float) -> str:
    """3.49M, 1,290M, 402G."""
    for factor, unit in ((1e12, "T"), (1e10, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{number(value / (1e9 if unit == 'G' else factor))}{unit}"
    return number(value) if value else "0"


def number(value: float | str | None) -> str:
    """Three significant digits, a true minus; an em dash for nothing."""
    if value is None or value == "":
        return "—"
    if abs(value) < TINY:
        return "0"
    text = f"{value:#.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    return text.rstrip(".").replace("-", "−")


def decimals(low: float, high: float) -> int | None:
    """Decimals that an interval of this width deserves (Particle Data Group's rule, roughly).

    Its half width keeps one digit, two if the first is a 1 or a 2; None if it has no width.
    """
    half = (high - low) / 2
    if half <= 0:
        return None
    exponent = math.floor(math.log10(half))
    return max(0, -exponent + (half / 10**exponent < 3))


def _fixed(value: float, places: int | None) -> str:
    if places is None:
        return number(value)
    text = f"{value:,.{places}f}".replace("-", "−")
    return text.lstrip("−") if not text.strip("−0.,") else text


def is_of_few(metric: Mapping[str, Any]) -> bool:
    """Whether it is a distance of sets too small for it, as in a trial run.

    `metric` is a measured one or a row of a table.
    """
    is_of_sets = metric.get("settings", {}).get("interval") in _OF_BLOCKS
    return (is_of_sets or base_of(metric.get("metric", "")) in _OF_SETS) and metric["n"] < FEW


def estimate(metric: Mapping[str, Any]) -> str:
    """The value of a metric, to the digits that its interval allows."""
    return _fixed(metric["value"], decimals(metric["ci_low"], metric["ci_high"]))


def interval(metric: Mapping[str, Any]) -> str:
    """`0.55 to 0.67`; of a distance of sets that says nothing, why."""
    if is_of_few(metric):
        return "too few images"
    places = decimals(metric["ci_low"], metric["ci_high"])
    return f"{_fixed(metric['ci_low'], places)} to {_fixed(metric['ci_high'], places)}"
