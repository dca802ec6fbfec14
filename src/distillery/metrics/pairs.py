"""The check of images that are compared in pairs.

In: two arrays of images. Out: nothing, or an error. Torch is not imported.
"""

import numpy as np

from distillery.core.errors import DistilleryError


def check_pairs(images: np.ndarray, reference: np.ndarray) -> None:
    """Raise DistilleryError unless both are uint8 RGB [n, H, W, 3] of one shape."""
    for name, array in (("images", images), ("reference", reference)):
        if array.dtype != np.uint8:
            raise DistilleryError(
                f"{name}: {array.dtype} values; 8-bit integers in [0, 255] are due, convert first"
            )
        if array.ndim != 4 or array.shape[-1] != 3:
            raise DistilleryError(f"{name}: shape {array.shape}; RGB images [n, H, W, 3] are due")
    if images.shape != reference.shape:
        raise DistilleryError(
            f"images {images.shape} and reference {reference.shape} differ in size or number; "
            "resize or match them first"
        )
