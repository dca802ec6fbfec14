"""Differences between two models of one run, with the narrowest honest interval.

In: results and a metric's name. Out: model minus factor times other, with a 95% interval: paired
over images where both models' per-image values are kept, else that of two independent estimates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distillery.metrics.intervals import paired_difference
from distillery.report.evidence import Results

NUM_RESAMPLES = 1000
PAIRED, APART = "paired over images", "two independent estimates"


@dataclass(frozen=True)
class Difference:
    """A difference with its interval; `kind` says how the interval came about."""

    value: float
    low: float
    high: float
    n: int
    kind: str


def difference(
    results: Results, model: str, other: str, metric: str, factor: float = 1.0
) -> Difference:
    """`model` - `factor` * `other`; both must have the metric (KeyError otherwise)."""
    a, b = results.metric(model, metric), results.metric(other, metric)
    if a is None or b is None:
        raise KeyError(f"{metric} of {model if a is None else other}")
    if (pair := _paired(results, model, other, metric, factor)) is not None:
        return pair
    low, high = a["ci_low"] - factor * b["ci_high"], a["ci_high"] - factor * b["ci_low"]
    numbers = (a["value"] - factor * b["value"], low, high)
    return Difference(*(rounded(v) for v in numbers), min(a["n"], b["n"]), APART)


def _paired(
    results: Results, model: str, other: str, metric: str, factor: float
) -> Difference | None:
    return paired(results.per_image(model, metric), results.per_image(other, metric), factor)


def paired(
    mine: tuple[list[str], dict[str, list]] | None,
    theirs: tuple[list[str], dict[str, list]] | None,
    factor: float = 1.0,
) -> Difference | None:
    """`mine` - `factor` * `theirs` over the images that both were judged on, given as
    `Results.per_image` gives them; None where they do not pair up."""
    if mine is None or theirs is None:
        return None
    keys = [key for key in mine[0] if key in set(theirs[0])]
    a, b = _table(*mine, keys), factor * _table(*theirs, keys)
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        return None
    shared = np.isfinite(a).any(axis=0) & np.isfinite(b).any(axis=0)
    if shared.sum() < 2:
        return None
    estimate = paired_difference(a[:, shared], b[:, shared], NUM_RESAMPLES)
    numbers = (estimate.value, estimate.ci_low, estimate.ci_high)
    return Difference(*(rounded(v) for v in numbers), estimate.n, PAIRED)


def _table(keys: Sequence[str], values: dict[str, list], wanted: Sequence[str]) -> np.ndarray:
    """float64 [seeds, keys], NaN where an image has no value."""
    place = {key: index for index, key in enumerate(keys)}
    rows = [[row[place[key]] for key in wanted] for row in values.values()]
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)


def rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
