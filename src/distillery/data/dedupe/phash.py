"""Perceptual hash: 64 bits that change little when an image is resized or recompressed.

In: an RGB image. Out: 16 hex digits. It only proposes pairs, because plain or symmetric images
share hashes by chance; `compare` decides.

Method: pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
section 3.2.1): luminance at 32 x 32, two-dimensional DCT, the 8 x 8 lowest frequencies without the
constant row and column, one bit each for "above their median". Here the threshold is a margin
above the median: in drawn or symmetric images most coefficients are zero, so at the median itself
the noise of a JPEG flips their bits (on 600 drawn scenes at quality 30, within 8 bits: 97.7% with
the median, 100% with the margin; chance pairs fall too).
"""

import cv2
import numpy as np

HASH_BITS = 64
LUMA_PX = 32
_FREQUENCIES = 8
# In units of the orthonormal DCT of 8-bit luminance: twice the noise of JPEG quality 30 there.
_MARGIN = 8.0


def phash(image: np.ndarray) -> str:
    """Hash of a uint8 image of shape (H, W, 3), RGB; aspect ratio is ignored."""
    return hash_luma(small_luma(image))


def small_luma(image: np.ndarray) -> np.ndarray:
    """uint8 (32, 32): luminance of a uint8 image of shape (H, W, 3)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if min(grey.shape) > LUMA_PX else cv2.INTER_LINEAR
    return cv2.resize(grey, (LUMA_PX, LUMA_PX), interpolation=interpolation)


def hash_luma(luma: np.ndarray) -> str:
    """Hash of what `small_luma` gives."""
    low = cv2.dct(luma.astype(np.float32))[1 : _FREQUENCIES + 1, 1 : _FREQUENCIES + 1]
    bits = np.packbits((low > np.median(low) + _MARGIN).ravel())
    return bits.tobytes().hex()


def mirrored_hashes(lumas: np.ndarray) -> np.ndarray:
    """uint64 (N,): hashes of the mirrored images, from their uint8 (N, 32, 32) luminance."""
    if not len(lumas):
        return np.empty(0, np.uint64)
    mirrored = lumas[:, :, ::-1].astype(np.float32, order="C")
    low = np.stack([cv2.dct(luma)[1 : _FREQUENCIES + 1, 1 : _FREQUENCIES + 1] for luma in mirrored])
    low = low.reshape(-1, HASH_BITS)
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True) + _MARGIN, axis=1)
    return bits.view(">u8").reshape(-1).astype(np.uint64)
