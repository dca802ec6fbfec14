import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.metrics.ssim import ssim


def test_ssim_against_a_computation_from_scratch(pairs):
    ndimage = pytest.importorskip("scipy.ndimage")
    a, b = (array / 255 for array in pairs)

    def blur(x):
        return ndimage.gaussian_filter(x, 1.5, truncate=3.5, mode="mirror", axes=(1, 2))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b)
    cov -= mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    full = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    full /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    np.testing.assert_allclose(ssim(*pairs), full.mean(axis=(1, 2, 3)), atol=1e-9)


def test_ssim_against_torchmetrics(pairs):
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.image import structural_similarity_index_measure

    x, y = (torch.from_numpy(a).permute(0, 3, 1, 2).double() / 255 for a in pairs)
    expected = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    np.testing.assert_allclose(ssim(*pairs), expected.flatten().numpy(), atol=1e-6)


def test_ssim_is_near_scikit_image_which_leaves_out_the_border(pairs):
    metrics = pytest.importorskip("skimage.metrics")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for x, y, value in zip(*pairs, ssim(*pairs), strict=True):
        other = metrics.structural_similarity(x, y, channel_axis=2, **options)
        assert value == pytest.approx(other, abs=0.02)


def test_identical_images(pairs):
    a, _ = pairs
    np.testing.assert_allclose(ssim(a, a), 1, atol=1e-12)


def test_values_do_not_depend_on_the_batch(pairs):
    a, b = pairs
    one_by_one = [ssim(a[i : i + 1], b[i : i + 1])[0] for i in range(len(a))]
    np.testing.assert_allclose(ssim(a, b), one_by_one, atol=1e-12)


def test_another_size_is_an_error(pairs):
    a, b = pairs
    with pytest.raises(DistilleryError, match="differ in size"):
        ssim(a, b[:, :32])
