import math

import numpy as np
import pytest

from distillery.errors import DistilleryError
from distillery.metrics.intervals import (
    Estimate,
    block_jackknife,
    bootstrap_mean,
    combine_seeds,
    mean_of_blocks,
    student_quantile,
    to_metric,
)


def test_bootstrap_is_close_to_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    estimate = bootstrap_mean(values, 1000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.ci_low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert estimate.ci_high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bootstrap_of_constant_values_has_no_width():
    estimate = bootstrap_mean([0.5] * 10, 100)
    assert (estimate.ci_low, estimate.value, estimate.ci_high) == (0.5, 0.5, 0.5)


def test_bootstrap_does_not_depend_on_the_order_of_images_by_much():
    values = np.random.default_rng(1).random(256)
    a, b = bootstrap_mean(values, 1000), bootstrap_mean(values[::-1], 1000)
    assert a.value == pytest.approx(b.value, abs=1e-12)
    assert a.ci_low == pytest.approx(b.ci_low, abs=0.2 * (a.ci_high - a.ci_low))


def test_no_values_and_values_that_are_not_finite_are_errors():
    with pytest.raises(DistilleryError, match="no images"):
        bootstrap_mean([], 10)
    with pytest.raises(DistilleryError, match="not finite"):
        Estimate(float("nan"), 0, 0, 0, 1)


def test_jackknife_of_a_mean_is_the_classical_standard_error():
    values = np.random.default_rng(2).normal(size=64)
    raw, estimate = block_jackknife(lambda kept: values[kept].mean(), 64, 64)
    assert raw == pytest.approx(values.mean())
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.std == pytest.approx(values.std(ddof=1) / 8)


def test_jackknife_removes_the_bias_of_the_plain_variance():
    values = np.random.default_rng(3).normal(size=40)
    _, estimate = block_jackknife(lambda kept: values[kept].var(), 40, 40)
    assert estimate.value == pytest.approx(values.var(ddof=1))


def test_student_quantiles_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 15, 30, 31, 100, 1000):
        assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3)


def test_seed_variance_widens_the_interval():
    same = [Estimate(1.0, 0.1, 0.8, 1.2, 50)] * 3
    apart = [Estimate(v, 0.1, v - 0.2, v + 0.2, 50) for v in (0.9, 1.0, 1.1)]
    assert combine_seeds(same).ci_high == pytest.approx(1.2)
    joint = combine_seeds(apart)
    assert joint.value == pytest.approx(1.0)
    assert joint.std == pytest.approx(0.1)
    assert joint.ci_high == pytest.approx(1 + math.hypot(0.2, 4.3027 * 0.1 / math.sqrt(3)))


def test_a_metric_says_what_its_interval_is_over():
    one = to_metric([mean_of_blocks(np.array([1.0, 2.0]), 8)], [0], {"a": 1})
    assert one["ci_low"] <= one["value"] <= one["ci_high"]
    assert one["settings"]["interval_over"] == "images; one training seed"
    two = to_metric([Estimate(1, 0, 1, 1, 8), Estimate(2, 0, 2, 2, 8)], [0, 1], {})
    assert two["settings"]["per_seed"] == [1, 2]
    assert two["settings"]["std_of"] == "training seeds"
