"""Fixtures of the tests of metrics."""

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="module", params=["drawn", "photograph"])
def pairs(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Smooth gradients with noise; four cuts of a photograph and their coarser JPEGs."""
    if request.param == "photograph":
        return _cuts()
    generator = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 48 * 48 * 3).reshape(1, 48, 48, 3)
    images = (smooth + generator.normal(0, 20, (5, 48, 48, 3))).clip(0, 255).astype(np.uint8)
    noisy = (images + generator.normal(0, 12, images.shape)).clip(0, 255).astype(np.uint8)
    return images, noisy


def _cuts() -> tuple[np.ndarray, np.ndarray]:
    photograph = pytest.importorskip("skimage.data").astronaut()
    cuts = [photograph[100 * i : 100 * i + 96, 60 * i : 60 * i + 96] for i in range(4)]
    coded = [
        cv2.imdecode(cv2.imencode(".jpg", c, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], 1) for c in cuts
    ]
    return np.stack(cuts), np.stack(coded)
