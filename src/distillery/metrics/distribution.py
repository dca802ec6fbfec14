"""Distances between sets of images: Frechet distance (FID) and kernel distance (KID).

In: features [n, d] of generated and of reference images, from a named extractor. Out: estimates
with intervals. Neither is ever bootstrapped with replacement, which inflates FID. All is float64;
torch is not imported. A Frechet distance from another extractor than Inception is no FID that can
be compared with printed ones: the caller writes the extractor beside the number.
"""

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.metrics.intervals import Estimate, block_jackknife, mean_of_blocks

FEW_IMAGES = 2048


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and unbiased covariance [d, d] of features [n, d]."""
    features = _check(features)
    return features.mean(axis=0), np.cov(features, rowvar=False, ddof=1).reshape(
        features.shape[1], -1
    )


def frechet_distance(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """Squared Frechet distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    tr sqrt(A B) is the sum of the square roots of the eigenvalues of sqrt(A) B sqrt(A): two
    symmetric eigendecompositions, no general matrix square root.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = root @ cov_b @ root
    cross = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0, None)).sum()
    shift = mean_a - mean_b
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def fid(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between two sets of features; biased upwards by about 1/n."""
    return frechet_distance(*moments(generated), *moments(reference))


def fid_with_interval(
    generated: np.ndarray, reference: np.ndarray, num_blocks: int
) -> tuple[Estimate, Estimate]:
    """(raw, bias-extrapolated) Frechet distance, by a jackknife over blocks of both sets at once.

    The extrapolated one has the jackknife's own interval, and is what claims are judged on. The
    raw one's interval reaches from the lower of both values to the higher, each less or plus the
    jackknife's half width: it contains the printed value and covers the true one.
    """
    n = min(len(generated), len(reference))

    def statistic(kept: np.ndarray) -> float:
        share = kept / n
        return fid(_pick(generated, share, kept, n), _pick(reference, share, kept, n))

    raw, corrected = block_jackknife(statistic, n, num_blocks)
    half = corrected.ci_high - corrected.value
    low, high = sorted((raw, corrected.value))
    return Estimate(raw, corrected.std, low - half, high + half, n), corrected


def _pick(features: np.ndarray, share: np.ndarray, kept: np.ndarray, n: int) -> np.ndarray:
    """Rows `kept`, of the larger set the same stretches of its length."""
    if len(features) == n:
        return features[kept]
    wanted = np.zeros(n, dtype=bool)
    wanted[kept] = True
    return features[wanted[np.arange(len(features)) * n // len(features)]]


def kid(generated: np.ndarray, reference: np.ndarray, *, paired: bool = False) -> float:
    """Unbiased squared MMD with the kernel (x.y/d + 1)^3 (Binkowski et al. 2018, eq. 4).

    `paired`: row i of both belongs to one record (same caption or noise). Such rows are alike
    whatever the distributions are, so their products are left out of the cross term, as in the
    U-statistic of Gretton et al. 2012 (eq. 3). Negative values are no error: the estimator is
    unbiased around 0.
    """
    x, y = _check(generated), _check(reference)
    within = [_mean_off_diagonal(_kernel(a, a)) for a in (x, y)]
    cross = _kernel(x, y)
    return float(sum(within) - 2 * (_mean_off_diagonal(cross) if paired else cross.mean()))


def kid_with_interval(
    generated: np.ndarray, reference: np.ndarray, num_blocks: int, *, paired: bool = False
) -> Estimate:
    """Mean of the unbiased estimator over disjoint subsets, with Student's interval.

    Pairs stay in one subset where both sets are equally large.
    """
    n = min(len(generated), len(reference))
    num_blocks = min(num_blocks, n // 2)
    if num_blocks < 2:
        raise DistilleryError(f"{n} images are too few for KID; generate at least 4")
    pairs = zip(
        np.array_split(generated, num_blocks), np.array_split(reference, num_blocks), strict=True
    )
    return mean_of_blocks(np.array([kid(a, b, paired=paired) for a, b in pairs]), n)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(kernel: np.ndarray) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _check(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise DistilleryError(
            f"features of shape {features.shape}; a distance between distributions needs at least "
            "two images on each side"
        )
    if not np.isfinite(features).all():
        raise DistilleryError("features are not finite; look at the images and the extractor")
    return features


def notes(num_generated: int, num_reference: int, num_features: int) -> list[str]:
    """What a reader of a distance must know: too few images for its size or for comparison."""
    found = []
    fewest = min(num_generated, num_reference)
    if fewest < FEW_IMAGES:
        found.append(f"under {FEW_IMAGES} images: not comparable with printed figures")
    if fewest <= num_features:
        found.append("fewer images than features: the covariance is rank-deficient")
    return found
