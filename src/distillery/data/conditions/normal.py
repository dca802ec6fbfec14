"""Normals: where a surface faces, from depth; red right, green up, blue towards the viewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.depth import depth_of_labels
from distillery.data.conditions.kind import ConditionKind, exact_by_labels

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.conditions.kind import Draw

# How many times the longer side inverse depth 1 stands out. As ControlNet 1.0's maps from MiDaS,
# whose gradients are weighed by 2 pi against their own length.
RELIEF = 1 / 16


def normal_of_depth(depth: np.ndarray) -> np.ndarray:
    """Normals uint8 (H, W, 3) of the relief whose height is inverse depth, uint8 (H, W, ...).

    (-dz/dx, dz/dy, 1) scaled to length 1, [-1, 1] as [0, 255]; the derivatives are 3x3 Sobel's.
    """
    import cv2
    import numpy as np

    height = (depth if depth.ndim == 2 else depth[:, :, 0]).astype(np.float32) / 255
    height *= RELIEF * max(depth.shape[:2])
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    facing = np.stack([-dx, dy, np.ones_like(dx)], axis=2)
    facing /= np.linalg.norm(facing, axis=2, keepdims=True)
    return np.rint((facing + 1) * 127.5).astype(np.uint8)


def normal_of_labels(labels: np.ndarray) -> np.ndarray:
    """Normals uint8 (H, W, 3) of a scene's class ids (H, W), by its depth."""
    return normal_of_depth(depth_of_labels(labels))


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    from distillery.data.conditions.estimators import load_depth

    estimate = load_depth(settings["normal"], device)
    return lambda image: normal_of_depth(estimate(image))


NORMAL = ConditionKind(
    name="normal",
    words="Normals",
    form="normal maps are light blue where a surface faces the viewer",
    draw=None,
    group="normal",
    open_drawer=_open,
    exact=exact_by_labels(normal_of_labels),
    of_labels=normal_of_labels,
)
