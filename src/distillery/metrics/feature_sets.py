"""Two sets of features, before a distance between them is taken.

In: features [n, d] of generated and of reference images, from a named extractor. Out: the same,
checked, their blocks, and what a reader must know of the sets. Torch is not imported.
"""

import numpy as np

from distillery.core.errors import DistilleryError

FEW_IMAGES = 2048


def checked(features: np.ndarray) -> np.ndarray:
    """The features as float64; raises DistilleryError for fewer than two rows, NaN or infinity."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise DistilleryError(
            f"features of shape {features.shape}; a distance between distributions needs at least "
            "two images on each side"
        )
    if not np.isfinite(features).all():
        raise DistilleryError("features are not finite; look at the images and the extractor")
    return features


def blocks_of(num_rows: int, num_images: int, num_blocks: int) -> np.ndarray:
    """The block of each row, int [num_rows]; blocks are stretches of `num_images` consecutive
    images, and in a larger set the same stretches of its length."""
    blocks = np.array_split(np.arange(num_images), num_blocks)
    block = np.repeat(np.arange(len(blocks)), [len(images) for images in blocks])
    return block[np.arange(num_rows) * num_images // num_rows]


def notes(num_generated: int, num_reference: int, num_features: int) -> list[str]:
    """What a reader of a distance must know: too few images for its size or for comparison."""
    remarks = []
    fewest = min(num_generated, num_reference)
    if fewest < FEW_IMAGES:
        remarks.append(f"under {FEW_IMAGES} images: not comparable with printed figures")
    if fewest <= num_features:
        remarks.append("fewer images than features: the covariance is rank-deficient")
    return remarks
