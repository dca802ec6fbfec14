import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.metrics.kid import kid, kid_with_interval


def test_kid_against_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.image.kid import poly_mmd

    x, y = np.random.default_rng(6).normal(size=(2, 100, 16))
    expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert kid(x, y) == pytest.approx(expected, abs=1e-10)


def test_kid_is_unbiased_and_its_interval_contains_it():
    x, y = np.random.default_rng(8).normal(size=(2, 512, 16))
    estimate = kid_with_interval(x, y, 16)
    assert estimate.ci_low <= 0 <= estimate.ci_high
    moved = kid_with_interval(x, y + 1, 16)
    assert moved.ci_low > estimate.ci_high


@pytest.mark.parametrize("paired", [False, True])
def test_kid_of_equal_distributions_is_zero_on_average(paired: bool):
    """Even of 16 images; with pairs that share a half, only if they are left out."""
    values = []
    for repeat in range(300):
        shared, *own = np.random.default_rng(repeat).normal(size=(3, 16, 4))
        x, y = ((shared + part) / np.sqrt(2) if paired else part for part in own)
        values.append(kid(x, y, paired=paired))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_too_few_images_are_an_error():
    with pytest.raises(DistilleryError, match="at least 4"):
        kid_with_interval(np.zeros((3, 2)), np.zeros((3, 2)), 4)
