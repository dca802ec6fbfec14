"""Peak signal-to-noise ratio of 8-bit RGB images, by torchmetrics.

In: uint8 images [n, H, W, 3] in pairs. Out: one value per pair, with data range 255 over all
channels. Torch is imported when the first pair is measured.
"""

import numpy as np

from distillery.metrics.meter import PAIRS, Meter, needing
from distillery.metrics.pairs import check_pairs

CAP_DB = 100.0
SETTINGS = {"data_range": 255, "channels": "rgb", "cap_db": CAP_DB}


def psnr(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each pair, float64 [n]; identical pairs get 100 dB."""
    check_pairs(images, reference)
    return np.array([_psnr_of_pair(a, b) for a, b in zip(images, reference, strict=True)])


def _psnr_of_pair(image: np.ndarray, reference: np.ndarray) -> float:
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio

    pair = (torch.from_numpy(np.array(x, dtype=np.float64)) for x in (image, reference))
    return min(float(peak_signal_noise_ratio(*pair, data_range=255.0)), CAP_DB)


PSNR = Meter(
    needs={"psnr": needing(PAIRS)},
    values=lambda chunk, tools: {"psnr": psnr(chunk.images, chunk.reference)},
    settings=lambda tools, columns: SETTINGS,
)
