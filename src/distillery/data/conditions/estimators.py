"""Learned estimators of depth and pose, by `transformers`.

In: a local folder that `save_pretrained` wrote, or a hub id. Out: a function from an RGB image to
its condition map, of the same size. Weights are safetensors, no code of a model's repository runs.
Not here: segmenters and edge detectors (`learned`).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from distillery.core.errors import DistilleryError
from distillery.data.conditions.networks import open_network
from distillery.data.conditions.openpose import draw_pose

Draw = Callable[[np.ndarray], np.ndarray]

# They give metres; all others, as MiDaS, DPT and Depth Anything, give inverse depth up to scale.
_METRIC_MODELS = ("zoedepth", "depth_pro", "glpn", "prompt_depth_anything")
_MIN_SCORE = 0.3  # of a keypoint or a person, as OpenPose's and ViTPose's demonstrations have it
_PERSON = "person"


def load_depth(place: str, device: str) -> Draw:
    """A depth estimator (Depth Anything, DPT, ...): inverse depth, light is near, uint8 (H, W).

    Each map is stretched to its own least and largest value, as ControlNet's annotators do: such
    models know no unit. Raises DistilleryError where `place` holds no depth estimator.
    """
    from transformers import AutoModelForDepthEstimation

    processor, model = open_network(AutoModelForDepthEstimation, place, device, "depth")
    config = model.config
    is_metric = getattr(config, "depth_estimation_type", "relative") == "metric"
    is_metric = is_metric or config.model_type in _METRIC_MODELS

    @torch.no_grad()
    def estimate(image: np.ndarray) -> np.ndarray:
        inputs = processor(images=image, return_tensors="pt").to(device)
        depth = model(**inputs).predicted_depth.float()
        depth = depth if depth.ndim == 4 else depth[:, None]
        full = functional.interpolate(depth, size=image.shape[:2], mode="bicubic")
        near = full[0, 0].cpu().numpy().astype(np.float64)
        return _stretched(1 / np.maximum(near, 1e-6) if is_metric else near)

    return estimate


def _stretched(values: np.ndarray) -> np.ndarray:
    """uint8 of any finite values, the least as 0, the largest as 255."""
    low, high = values.min(), values.max()
    return np.rint(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)


def load_pose(place: str, detector: str | None, device: str) -> Draw:
    """A keypoint model of COCO's 17 joints (ViTPose): OpenPose's drawing of the people it finds.

    `detector` is an object detector with a class `person`, whose boxes the keypoints are looked
    for in; None: one person fills the image. Raises DistilleryError where a place holds neither.
    """
    from transformers import VitPoseForPoseEstimation

    processor, model = open_network(VitPoseForPoseEstimation, place, device, "pose")
    find = _whole_image if detector is None else _load_detector(detector, device)

    @torch.no_grad()
    def pose(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        boxes = find(image)
        if not len(boxes):
            return np.zeros((height, width, 3), dtype=np.uint8)
        inputs = processor(images=image, boxes=[boxes], return_tensors="pt").to(device)
        people = processor.post_process_pose_estimation(model(**inputs), boxes=[boxes])[0]
        points = np.stack([person["keypoints"].cpu().numpy() for person in people])
        scores = np.stack([person["scores"].cpu().numpy() for person in people])
        return draw_pose(points, scores >= _MIN_SCORE, height, width)

    return pose


def _whole_image(image: np.ndarray) -> np.ndarray:
    return np.array([[0, 0, image.shape[1], image.shape[0]]], dtype=np.float32)


def _load_detector(place: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Boxes (x, y, width, height) float32 (N, 4) of the people in an image."""
    from transformers import AutoModelForObjectDetection

    processor, model = open_network(AutoModelForObjectDetection, place, device, "pose_detector")
    ids = [i for i, name in model.config.id2label.items() if name.lower() == _PERSON]
    if not ids:
        raise DistilleryError(
            f"extract_conditions.pose_detector: {place} knows no class {_PERSON}; name a detector "
            "trained on COCO"
        )

    @torch.no_grad()
    def find(image: np.ndarray) -> np.ndarray:
        inputs = processor(images=image, return_tensors="pt").to(device)
        found = processor.post_process_object_detection(
            model(**inputs), threshold=_MIN_SCORE, target_sizes=[image.shape[:2]]
        )[0]
        corners = found["boxes"][torch.isin(found["labels"].cpu(), torch.tensor(ids))].cpu().numpy()
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

    return find
