"""Frechet distance between sets of images (FID), by torchmetrics, with a jackknife interval.

In: features [n, d] of generated and of reference images. Out: the raw and the bias-extrapolated
distance. Nothing is bootstrapped with replacement, which inflates FID. All is float64. A distance
from another extractor than Inception is no FID that can be compared with printed ones: the
extractor stands beside the number. Torch is imported when the first distance is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from distillery.metrics.feature_sets import blocks_of, checked
from distillery.metrics.intervals import Estimate, jackknife_of_blocks
from distillery.metrics.meter import EXTRACTOR, SETS, Measured, SetMeter, needing


@dataclass(frozen=True)
class Moments:
    """Number, mean [d] and scatter [d, d] (sum of centred outer products) of some features."""

    num_images: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Of features [n, d]."""
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets of features together (Chan et al. 1979)."""
        num_images, shift = self.num_images + other.num_images, other.mean - self.mean
        share = other.num_images / num_images
        between = np.outer(shift, shift) * (self.num_images * share)
        return Moments(
            num_images, self.mean + share * shift, self.scatter + other.scatter + between
        )

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, [d, d]."""
        return self.scatter / (self.num_images - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).

    tr sqrt(A B) is the sum of the square roots of the eigenvalues of sqrt(A) B sqrt(A): two
    symmetric eigendecompositions, no general matrix square root. A jackknife multiplies errors by
    its number of blocks; torchmetrics' roots of a rank-deficient product are good to 5e-8.
    """
    cov_a, cov_b, shift = a.covariance, b.covariance, a.mean - b.mean
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = root @ cov_b @ root
    cross = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0, None)).sum()
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def fid(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between two sets of features; biased upwards by about 1/n."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    sides = {False: checked(generated), True: checked(reference)}
    extracted = torch.nn.Identity()  # our extractor has run: torchmetrics takes its features
    extracted.num_features = generated.shape[1]
    metric = FrechetInceptionDistance(feature=extracted)
    for is_real, features in sides.items():
        metric.update(torch.from_numpy(features), real=is_real)
    return float(metric.compute())


def fid_with_interval(
    generated: np.ndarray, reference: np.ndarray, num_blocks: int
) -> tuple[Estimate, Estimate]:
    """(raw, bias-extrapolated) Frechet distance, by a jackknife over blocks of both sets at once.

    The extrapolated one has the jackknife's own interval, and is what claims are judged on. The
    raw one's interval reaches from the lower of both values to the higher, each less or plus the
    jackknife's half width: it contains the printed value and covers the true one.
    """
    raw, n = fid(generated, reference), min(len(generated), len(reference))
    num_blocks = min(num_blocks, n)
    sides = [_by_block(checked(x), n, num_blocks) for x in (generated, reference)]
    whole = frechet_distance(*(_sum(side) for side in sides))
    without = [
        frechet_distance(*(_sum(m for i, m in enumerate(side) if i != left_out) for side in sides))
        for left_out in range(num_blocks if num_blocks > 1 else 0)
    ]
    corrected = jackknife_of_blocks(whole, without, n)
    half = corrected.ci_high - corrected.value
    low, high = sorted((raw, corrected.value))
    return Estimate(raw, corrected.std, low - half, high + half, n), corrected


def _by_block(features: np.ndarray, num_images: int, num_blocks: int) -> list[Moments]:
    block = blocks_of(len(features), num_images, num_blocks)
    return [Moments.of(features[block == number]) for number in range(num_blocks)]


def _sum(moments: Iterable[Moments]) -> Moments:
    return reduce(Moments.__add__, moments)


def _estimates(own: np.ndarray, reference: np.ndarray, num_blocks: int) -> Measured:
    raw, corrected = fid_with_interval(own, reference, num_blocks)
    settings = {"interval": "jackknife over image blocks"}
    return {
        "fid": (raw, {**settings, "bias_extrapolated": corrected.value}),
        "fid_extrapolated": (corrected, {**settings, "raw": raw.value}),
    }


FRECHET = SetMeter(
    needs=dict.fromkeys(("fid", "fid_extrapolated"), needing(SETS, EXTRACTOR)),
    estimates=_estimates,
)
