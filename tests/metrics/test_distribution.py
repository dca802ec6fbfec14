import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.metrics.distribution import (
    fid,
    fid_with_interval,
    frechet_distance,
    kid,
    kid_with_interval,
    moments,
    notes,
)


def _gaussian(seed: int, n: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(size=(n, len(mean))) @ root.T


def test_frechet_distance_of_commuting_gaussians_is_closed_form():
    a, b = np.array([4.0, 1.0, 9.0]), np.array([1.0, 1.0, 16.0])
    shift = np.array([1.0, 0.0, -2.0])
    expected = 5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    value = frechet_distance(np.zeros(3), np.diag(a), shift, np.diag(b))
    assert value == pytest.approx(expected, abs=1e-12)


def test_frechet_distance_against_a_general_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    generator = np.random.default_rng(0)
    a, b = (m @ m.T for m in generator.normal(size=(2, 12, 12)))
    root = linalg.sqrtm(a @ b)
    expected = np.trace(a + b - 2 * root.real)
    assert frechet_distance(np.zeros(12), a, np.zeros(12), b) == pytest.approx(expected, rel=1e-9)


def test_fid_against_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.image.fid import _compute_fid

    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(200, 16)), generator.normal(0.2, 1.3, size=(150, 16))
    tensors = [torch.from_numpy(part) for pair in (moments(x), moments(y)) for part in pair]
    assert fid(x, y) == pytest.approx(float(_compute_fid(*tensors)), rel=1e-8)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_fid_and_kid_do_not_depend_on_the_order_of_images():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(64, 8)), generator.normal(size=(80, 8))
    shuffled = generator.permutation(x)
    assert fid(x, y) == pytest.approx(fid(shuffled, y), rel=1e-10)
    assert kid(x, y) == pytest.approx(kid(shuffled, y), rel=1e-8)


def test_fid_of_fewer_images_than_features_is_finite():
    x, y = np.random.default_rng(3).normal(size=(2, 10, 32))
    assert np.isfinite(fid(x, y))
    assert len(notes(10, 10, 32)) == 2
    assert notes(4096, 4096, 32) == []


def test_intervals_cover_the_known_distance_of_two_gaussians():
    dim, n, repeats = 8, 256, 100
    mean, scale = np.full(dim, 0.3), np.linspace(0.6, 1.6, dim)
    truth = frechet_distance(np.zeros(dim), np.eye(dim), mean, np.diag(scale**2))
    covered = {"raw": 0, "corrected": 0}
    for repeat in range(repeats):
        x = _gaussian(2 * repeat, n, np.zeros(dim), np.eye(dim))
        y = _gaussian(2 * repeat + 1, n, mean, np.diag(scale))
        for name, e in zip(covered, fid_with_interval(x, y, 16), strict=True):
            assert e.ci_low <= e.value <= e.ci_high
            covered[name] += e.ci_low <= truth <= e.ci_high
    assert min(covered.values()) >= 90, covered


def test_extrapolation_moves_the_biased_distance_towards_zero():
    x, y = np.random.default_rng(4).normal(size=(2, 256, 32))
    raw, corrected = fid_with_interval(x, y, 16)
    assert raw.value > 1.5
    assert abs(corrected.value) < 0.3 * raw.value
    assert raw.ci_low <= 0 <= raw.ci_high or corrected.ci_low <= 0.3


def test_jackknife_takes_sets_of_different_sizes():
    generator = np.random.default_rng(5)
    raw, _ = fid_with_interval(generator.normal(size=(64, 4)), generator.normal(size=(150, 4)), 8)
    assert raw.n == 64


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


def test_too_few_or_broken_features_are_errors():
    with pytest.raises(DistilleryError, match="at least 4"):
        kid_with_interval(np.zeros((3, 2)), np.zeros((3, 2)), 4)
    with pytest.raises(DistilleryError, match="two images"):
        fid(np.zeros((1, 2)), np.zeros((5, 2)))
    with pytest.raises(DistilleryError, match="not finite"):
        fid(np.full((5, 2), np.nan), np.zeros((5, 2)))
