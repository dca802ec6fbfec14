import math

import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.metrics.intervals import (
    Estimate,
    bootstrap_mean,
    combine_seeds,
    jackknife_of_blocks,
    mean_of_blocks,
    metrics_file,
    paired_difference,
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


def _without_each(statistic, values):
    return statistic(values), [statistic(np.delete(values, i)) for i in range(len(values))]


def test_jackknife_of_a_mean_is_the_classical_standard_error():
    values = np.random.default_rng(2).normal(size=64)
    estimate = jackknife_of_blocks(*_without_each(np.mean, values), 64)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.std == pytest.approx(values.std(ddof=1) / 8)


def test_jackknife_removes_the_bias_of_the_plain_variance():
    values = np.random.default_rng(3).normal(size=40)
    estimate = jackknife_of_blocks(*_without_each(np.var, values), 40)
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


def test_images_without_a_value_are_kept_apart():
    estimate = bootstrap_mean([1.0, None, 3.0], 100)
    assert (estimate.value, estimate.n) == (2.0, 2)
    assert estimate.per_image == (1.0, None, 3.0)


def test_per_image_values_stand_in_the_file_by_metric_and_seed():
    def found(values: list) -> dict:
        return {"a": (bootstrap_mean(values, 100), {}), "b": (mean_of_blocks(np.ones(3), 3), {})}

    by_seed = {0: found([1 / 3, 2.0]), 7: found([None, 4.0])}
    file = metrics_file(by_seed, {}, {}, ["x", "y", "z"])
    assert file["per_image"] == {
        "keys": ["x", "y", "z"],
        "values": {"a": {"0": [0.33333, 2.0, None], "7": [None, 4.0, None]}},
    }
    assert "per_image" not in metrics_file(by_seed, {}, {})
    with pytest.raises(ValueError, match="2 values for 1 images"):
        metrics_file(by_seed, {}, {}, ["x"])


def test_pairs_cancel_what_is_hard_for_both():
    generator = np.random.default_rng(3)
    hard = generator.normal(0, 5, 400)
    a, b = hard + generator.normal(0.2, 0.3, 400), hard + generator.normal(0, 0.3, 400)
    estimate = paired_difference(a, b, 1000)
    assert estimate.value == pytest.approx((a - b).mean())
    half = 1.96 * (a - b).std() / 20
    assert estimate.ci_low == pytest.approx(estimate.value - half, abs=0.2 * half)
    assert estimate.ci_low > 0
    assert bootstrap_mean(a, 1000).ci_low < bootstrap_mean(b, 1000).ci_high
    assert paired_difference(b, a, 1000).value == pytest.approx(-estimate.value)


def test_pairs_leave_out_images_that_one_side_lacks():
    estimate = paired_difference([1.0, None, 5.0, 2.0], [0.0, 1.0, float("nan"), 0.0], 100)
    assert (estimate.value, estimate.n) == (1.5, 2)


def test_paired_intervals_cover_a_difference_with_training_seed_variance():
    """Three seeds that differ by themselves: images alone would cover far less."""
    generator, covered, by_images = np.random.default_rng(4), 0, 0
    for _ in range(100):
        own = generator.normal(0, 0.3, (3, 1))
        hard = generator.normal(0, 1, 120)
        a = hard + 1 + own + generator.normal(0, 0.4, (3, 120))
        b = hard + generator.normal(0, 0.4, 120)
        estimate = paired_difference(a, b, 200)
        covered += estimate.ci_low <= 1 <= estimate.ci_high
        images = bootstrap_mean((a - b).mean(0), 200)
        by_images += images.ci_low <= 1 <= images.ci_high
    assert covered >= 90
    assert by_images < 80


def test_several_seeds_are_joined_as_in_the_metrics_files():
    generator = np.random.default_rng(5)
    a, b = generator.normal(1, 1, (3, 50)), generator.normal(0, 1, (3, 50))
    joint = combine_seeds([bootstrap_mean(x - y, 300) for x, y in zip(a, b, strict=True)])
    assert paired_difference(a, b, 300) == joint


def test_values_that_do_not_pair_up_are_errors():
    for a, b in ((np.zeros(3), np.zeros(4)), (np.zeros((3, 5)), np.zeros((2, 5)))):
        with pytest.raises(DistilleryError, match="do not pair up"):
            paired_difference(a, b, 100)
    with pytest.raises(DistilleryError, match="no images"):
        paired_difference([None], [1.0], 100)
