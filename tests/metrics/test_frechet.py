import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.metrics.feature_sets import notes
from distillery.metrics.frechet import Moments, fid, fid_with_interval, frechet_distance
from distillery.metrics.kid import kid


def _moments(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return Moments(2, mean, covariance)


def _gaussian(seed: int, n: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(size=(n, len(mean))) @ root.T


def test_frechet_distance_of_commuting_gaussians_is_closed_form():
    a, b = np.array([4.0, 1.0, 9.0]), np.array([1.0, 1.0, 16.0])
    shift = np.array([1.0, 0.0, -2.0])
    expected = 5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    value = frechet_distance(_moments(np.zeros(3), np.diag(a)), _moments(shift, np.diag(b)))
    assert value == pytest.approx(expected, abs=1e-12)


def test_frechet_distance_against_a_general_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    generator = np.random.default_rng(0)
    a, b = (m @ m.T for m in generator.normal(size=(2, 12, 12)))
    root = linalg.sqrtm(a @ b)
    expected = np.trace(a + b - 2 * root.real)
    value = frechet_distance(_moments(np.zeros(12), a), _moments(np.zeros(12), b))
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (12, 64)])
def test_torchmetrics_and_own_roots_agree_also_where_the_rank_is_deficient(n: int, d: int):
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(n, d)), generator.normal(0.2, 1.3, size=(n - 2, d))
    own = frechet_distance(Moments.of(x), Moments.of(y))
    assert fid(x, y) == pytest.approx(own, rel=1e-6)
    assert fid(x, x) == pytest.approx(0, abs=1e-5)


def test_moments_of_blocks_add_up_to_those_of_all():
    x = np.random.default_rng(7).normal(5, 2, size=(101, 6))
    joint = Moments.of(x[:30]) + Moments.of(x[30:31]) + Moments.of(x[31:])
    np.testing.assert_allclose(joint.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(joint.covariance, np.cov(x, rowvar=False), rtol=1e-11)


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
    truth = frechet_distance(
        _moments(np.zeros(dim), np.eye(dim)), _moments(mean, np.diag(scale**2))
    )
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


def test_too_few_or_broken_features_are_errors():
    with pytest.raises(DistilleryError, match="two images"):
        fid(np.zeros((1, 2)), np.zeros((5, 2)))
    with pytest.raises(DistilleryError, match="not finite"):
        fid(np.full((5, 2), np.nan), np.zeros((5, 2)))
