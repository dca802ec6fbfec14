"""Intervals that are honest about images and about training seeds.

In: per-image values, a statistic of images, or one estimate per training seed. Out: an `Estimate`
with a 95% interval that contains its value; differences of two models on the same images; the
metrics file's form. Not here: which statistic (a metric's own file). Torch is not imported.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distillery.core.errors import DistilleryError

LEVEL = 0.95
_NORMAL = 1.959964
# 97.5% quantiles of Student's t for 1..30 degrees of freedom (Abramowitz & Stegun, table 26.10).
_STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A value, the standard deviation of that value as an estimate, a 95% interval, n images.

    `per_image` are the values that a mean was taken over, None where an image has none.
    """

    value: float
    std: float
    ci_low: float
    ci_high: float
    n: int
    per_image: tuple[float | None, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        numbers = (self.value, self.std, self.ci_low, self.ci_high)
        if not all(math.isfinite(number) for number in numbers):
            raise DistilleryError(f"a metric is not finite: {numbers}; look at the images")


def student_quantile(degrees: int) -> float:
    """97.5% quantile of Student's t; over 30 degrees by its expansion (A&S, 26.7.5)."""
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = _NORMAL
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def bootstrap_mean(values: Sequence[float | None], num_resamples: int, seed: int = 0) -> Estimate:
    """Mean of per-image values with a percentile bootstrap over images (Efron 1979).

    Images without a value (None) are kept in `per_image` and count for nothing else. Vectorised as
    multinomial counts times values: 0.1 s for 2,000 images and 1,000 resamples.
    """
    per_image = tuple(None if value is None else float(value) for value in values)
    sample = np.array([value for value in per_image if value is not None], dtype=np.float64)
    if not len(sample):
        raise DistilleryError("no images to average over; generate some first")
    n = len(sample)
    means = _resamples(n, num_resamples, seed) @ sample / n
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    value = float(sample.mean())
    low, high = min(float(low), value), max(float(high), value)
    return Estimate(value, float(means.std()), low, high, n, per_image)


@functools.lru_cache(maxsize=4)
def _resamples(n: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each of n images is drawn in each resample; the same for every quantity of them."""
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), num_resamples)
    return counts.astype(np.float64)


def jackknife_of_blocks(whole: float, without: Sequence[float], n: int) -> Estimate:
    """The bias-extrapolated estimate of a statistic of n images, with an interval.

    `whole` is the statistic of all images, `without` that of all but one block, for each of B
    blocks. With pseudo-values p_j = B theta - (B - 1) theta_(-j) (Quenouille 1956, Tukey 1958),
    their mean has no bias of order 1/n, and their spread gives the interval. Nothing is drawn with
    replacement: repeated images would inflate a Frechet distance.
    """
    num_blocks = len(without)
    if num_blocks < 2:
        raise DistilleryError(f"{n} images are too few for an interval; generate more")
    return mean_of_blocks(num_blocks * whole - (num_blocks - 1) * np.array(without), n)


def mean_of_blocks(values: np.ndarray, n: int) -> Estimate:
    """Mean of independent block values with Student's interval; `n` images in all."""
    std = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    half, value = student_quantile(len(values) - 1) * std, float(np.mean(values))
    return Estimate(value, std, value - half, value + half, n)


def exact(value: float, n: int = 1) -> Estimate:
    """A counted value: its interval is the value."""
    return Estimate(value, 0.0, value, value, n)


def combine_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over training seeds, with image variance and training-seed variance in the interval.

    All seeds are judged on the same prompts and noise, so averaging them does not average image
    noise away: each side's width is the root of the mean squared image width and of Student's
    squared interval for the mean over seeds. `std` is that of the values over seeds.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = np.array([e.value for e in estimates])
    mean, between = float(values.mean()), float(values.std(ddof=1))
    seed_width = student_quantile(len(values) - 1) * between / math.sqrt(len(values))
    below = np.mean([(e.value - e.ci_low) ** 2 for e in estimates])
    above = np.mean([(e.ci_high - e.value) ** 2 for e in estimates])
    return Estimate(
        mean,
        between,
        mean - math.sqrt(below + seed_width**2),
        mean + math.sqrt(above + seed_width**2),
        min(e.n for e in estimates),
    )


def paired_difference(
    a: Sequence, b: Sequence, num_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Mean of a - b over images that both models were judged on, with its own interval.

    `a` and `b` are per-image values [n], or [seeds, n] with a row per training seed (a model
    without training, such as the teacher, has one row and meets each of the other's); None or NaN
    where an image has no value, and such an image is left out of that seed's pair. Each seed's
    differences get a bootstrap over images: what both models find hard cancels. Several seeds are
    joined as in the metrics files, by `combine_seeds`: Student's interval over the seeds' mean
    differences is added to the images' width. Seeds are not resampled, because a bootstrap of
    three has two thirds of the variance and no tails. `n` is the fewest images of a seed; `std` is
    that over seeds where there are several.

    Raises DistilleryError where the numbers of images or of seeds do not fit together.
    """
    left, right = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (a, b))
    num_seeds = max(len(left), len(right))
    if left.shape[1] != right.shape[1] or {len(left), len(right)} - {1, num_seeds}:
        raise DistilleryError(
            f"values {left.shape} and {right.shape} [seeds, images] do not pair up; judge both "
            "models on the same images with as many training seeds"
        )
    estimates = []
    for row in np.broadcast_to(left, (num_seeds, left.shape[1])) - right:
        estimates.append(bootstrap_mean(row[~np.isnan(row)], num_resamples, seed))
    return combine_seeds(estimates)


def to_metric(
    estimates: Sequence[Estimate], seeds: Sequence[int], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON form of one metric, from one estimate per training seed."""
    if len(estimates) != len(seeds):
        raise ValueError(f"{len(estimates)} estimates for {len(seeds)} seeds")
    joint = combine_seeds(estimates)
    several = len(estimates) > 1
    interval = "images and training seeds" if several else "images; one training seed"
    return {
        "value": _rounded(joint.value),
        "std": _rounded(joint.std),
        "ci_low": _rounded(joint.ci_low),
        "ci_high": _rounded(joint.ci_high),
        "n": joint.n,
        "seeds": list(seeds),
        "settings": {
            **settings,
            "interval_over": interval,
            "std_of": "training seeds" if several else "the estimate",
            **({"per_seed": [_rounded(e.value) for e in estimates]} if several else {}),
        },
    }


def metrics_file(
    by_seed: Mapping[int, Mapping[str, tuple[Estimate, dict[str, Any]]]],
    skipped: Mapping[str, str],
    fingerprints: Mapping[str, str],
    keys: Sequence[str] = (),
) -> dict[str, Any]:
    """`metrics`, `skipped` and `fingerprints` from {seed: {name: (estimate, settings)}}.

    With the images' `keys` also `per_image`: {"keys", "values": {name: {seed: [value or None]}}},
    of every metric that is a mean over images.
    """
    seeds = list(by_seed)
    names = sorted(set.intersection(*(set(measured) for measured in by_seed.values())))
    metrics = {}
    for name in names:
        estimates = [by_seed[seed][name][0] for seed in seeds]
        metrics[name] = to_metric(estimates, seeds, by_seed[seeds[0]][name][1])
    file = {"metrics": metrics, "skipped": dict(skipped), "fingerprints": dict(fingerprints)}
    if not keys:
        return file
    values = {
        name: {str(seed): _padded(by_seed[seed][name][0].per_image, len(keys)) for seed in seeds}
        for name in names
        if all(by_seed[seed][name][0].per_image for seed in seeds)
    }
    return {**file, "per_image": {"keys": list(keys), "values": values}}


def _padded(values: Sequence[float | None], length: int) -> list[float | None]:
    """Five significant digits; None for the images beyond those that were measured."""
    if len(values) > length:
        raise ValueError(f"{len(values)} values for {length} images")
    known = [None if value is None else float(f"{value:.5g}") for value in values]
    return known + [None] * (length - len(values))


def _rounded(value: float) -> float:
    """Six significant digits for people; whole numbers stay exact."""
    return value if value == int(value) else float(f"{value:.6g}")
