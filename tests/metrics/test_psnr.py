import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.metrics.psnr import psnr


def test_psnr_against_scikit_image(pairs):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pairs
    expected = [metrics.peak_signal_noise_ratio(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-6)


def test_identical_images_get_the_cap(pairs):
    a, _ = pairs
    assert psnr(a, a).tolist() == [100.0] * len(a)


def test_a_wrong_range_or_shape_is_an_error(pairs):
    a, b = pairs
    with pytest.raises(DistilleryError, match="8-bit integers"):
        psnr(a / 255, b / 255)
    with pytest.raises(DistilleryError, match="RGB images"):
        psnr(a[..., 0], b[..., 0])
