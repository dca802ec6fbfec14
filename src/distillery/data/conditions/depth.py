"""Depth: light is near, by inverse depth; exact for scenes, elsewhere by a learned estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.kind import ConditionKind, exact_by_labels

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.conditions.kind import Draw


def depth_of_labels(labels: np.ndarray) -> np.ndarray:
    """Inverse depth uint8 (H, W, 3) of a scene's class ids (H, W), 0 where nothing is.

    All shapes are taken to be equally large, so that under a pinhole camera inverse depth is
    proportional to apparent size: of each connected shape the longer side of its box, as a share
    of the image's longer side. Where one covers another, the labels show which.
    """
    import cv2
    import numpy as np

    depth = np.zeros(labels.shape, dtype=np.uint8)
    for label in np.unique(labels[labels > 0]):
        _, parts, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
        sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
        levels = np.rint(255 * sides / max(labels.shape)).astype(np.uint8)
        depth[parts > 0] = levels[parts[parts > 0]]
    return np.repeat(depth[:, :, None], 3, axis=2)


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    from distillery.data.conditions.estimators import load_depth

    return load_depth(settings["depth"], device)


DEPTH = ConditionKind(
    name="depth",
    words="Depth",
    form="depth maps are light where it is near",
    draw=None,
    group="depth",
    open_drawer=_open,
    exact=exact_by_labels(depth_of_labels),
    of_labels=depth_of_labels,
)
