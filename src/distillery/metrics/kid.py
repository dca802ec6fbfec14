"""Kernel distance between sets of images (KID).

In: features [n, d] of generated and of reference images. Out: an estimate with an interval, from
disjoint blocks: torchmetrics' KID draws random subsets instead and has no pairs. All is float64;
torch is not imported.
"""

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.metrics.feature_sets import checked
from distillery.metrics.intervals import Estimate, mean_of_blocks
from distillery.metrics.meter import EXTRACTOR, SETS, Measured, SetMeter, needing


def kid(generated: np.ndarray, reference: np.ndarray, *, paired: bool = False) -> float:
    """Unbiased squared MMD with the kernel (x.y/d + 1)^3 (Binkowski et al. 2018, eq. 4).

    `paired`: row i of both belongs to one record (same caption or noise). Such rows are alike
    whatever the distributions are, so their products are left out of the cross term, as in the
    U-statistic of Gretton et al. 2012 (eq. 3). Negative values are no error: the estimator is
    unbiased around 0.
    """
    x, y = checked(generated), checked(reference)
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


def _estimates(own: np.ndarray, reference: np.ndarray, num_blocks: int) -> Measured:
    estimate = kid_with_interval(own, reference, num_blocks, paired=len(own) == len(reference))
    return {"kid": (estimate, {"kernel": "(x.y/d + 1)^3", "interval": "disjoint subsets"})}


KID = SetMeter(needs={"kid": needing(SETS, EXTRACTOR)}, estimates=_estimates)
