"""Poses: a person's joints and limbs as OpenPose draws them, by a keypoint model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distillery.data.conditions.kind import ConditionKind

if TYPE_CHECKING:
    from distillery.data.conditions.kind import Draw


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    from distillery.data.conditions.estimators import load_pose

    return load_pose(settings["pose"], settings["pose_detector"], device)


POSE = ConditionKind(
    name="pose",
    words="Pose",
    form="poses are coloured limbs on black",
    draw=None,
    group="pose",
    open_drawer=_open,
)
