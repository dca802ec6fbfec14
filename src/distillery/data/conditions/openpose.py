"""People as ControlNets for poses expect them: OpenPose's limbs and joints, in its colours.

In: COCO's keypoints. Out: the picture. Not here: finding people (`estimators`).
"""

import cv2
import numpy as np

# OpenPose's 18 joints by COCO's 17 keypoints; its neck (None) is the middle of the shoulders.
_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_SHOULDERS = (5, 6)
# Limbs and colours in the order of ControlNet's `annotator/openpose/util.py`, from 0.
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
LIMB_BRIGHTNESS = 0.6
STICK_PX, DRAWN_AT_PX = 4, 512  # half a limb's width, at this shorter side


def draw_pose(people: np.ndarray, seen: np.ndarray, height: int, width: int) -> np.ndarray:
    """Limbs and joints of people on black, uint8 (H, W, 3).

    `people` (N, 17, 2) are COCO keypoints (x, y) in pixels, `seen` bool (N, 17) which of them
    count. A limb is drawn where both of its joints are seen.
    """
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    thick = max(1, round(STICK_PX * min(height, width) / DRAWN_AT_PX))
    bodies = [_joints(p, s) for p, s in zip(people, seen, strict=True)]
    for joints in bodies:
        for (a, b), colour in zip(_LIMBS, _COLOURS, strict=False):
            if joints[a] is not None and joints[b] is not None:
                middle, gap = (joints[a] + joints[b]) / 2, joints[b] - joints[a]
                axes = (int(np.hypot(*gap) / 2), thick)
                angle = int(np.degrees(np.arctan2(gap[1], gap[0])))
                limb = cv2.ellipse2Poly(tuple(middle.astype(int).tolist()), axes, angle, 0, 360, 1)
                cv2.fillConvexPoly(canvas, limb, [c * LIMB_BRIGHTNESS for c in colour])
    for joints in bodies:
        for joint, colour in zip(joints, _COLOURS, strict=True):
            if joint is not None:
                cv2.circle(canvas, tuple(joint.astype(int).tolist()), thick, colour, -1)
    return canvas


def _joints(points: np.ndarray, seen: np.ndarray) -> list[np.ndarray | None]:
    """OpenPose's joints (x, y) of one person; None for those that are not seen."""
    neck = points[list(_SHOULDERS)].mean(axis=0) if seen[list(_SHOULDERS)].all() else None
    own = [None if i is None or not seen[i] else points[i] for i in _OF_COCO]
    return [neck if i is None else joint for i, joint in zip(_OF_COCO, own, strict=True)]
