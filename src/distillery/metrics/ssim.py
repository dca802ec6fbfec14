"""Structural similarity of 8-bit RGB images.

In: uint8 images [n, H, W, 3] in pairs. Out: one value per pair: Gaussian window of 11 px and sigma
1.5, data range 1, mean over RGB channels (Wang et al. 2004), the border mirrored, as in
torchmetrics. Torch is not imported.
"""

import numpy as np

from distillery.data.ssim import ssim_map
from distillery.metrics.meter import PAIRS, Meter, needing
from distillery.metrics.pairs import check_pairs

SETTINGS = {
    "window": "gaussian 11 px, sigma 1.5",
    "data_range": 1.0,
    "channels": "rgb mean",
    "border": "mirrored",
}


def ssim(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Structural similarity of each pair, float64 [n]; about 2 ms a pair at 64 px."""
    check_pairs(images, reference)
    pairs = zip(images, reference, strict=True)
    return np.array([float(ssim_map(x / 255.0, y / 255.0, 1.0).mean()) for x, y in pairs])


SSIM = Meter(
    needs={"ssim": needing(PAIRS)},
    values=lambda chunk, tools: {"ssim": ssim(chunk.images, chunk.reference)},
    settings=lambda tools, columns: SETTINGS,
)
