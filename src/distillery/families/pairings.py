"""What a variant's prediction is judged against, and its student behind the export gate.

In: which prediction of the teacher (`Family.predicts`), the teacher, a function that loads a seed's
student. Out: prediction functions. Not here: distances, loading.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.families.base import Prediction
from distillery.families.load import Student
from distillery.metrics.prediction_distance import Predict, controlled, guided, plain
from distillery.models.gate import same_unet
from distillery.models.lowrank.removed import removed_in
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.teacher.load import Teacher


@dataclass(frozen=True)
class Pairing:
    """What is compared: the teacher's prediction, and that of the student of a training seed."""

    expected: Predict
    student: Callable[[int], Predict]
    settings: dict[str, Any]


def pairing(
    wanted: Prediction,
    teacher: Teacher,
    control: ControlNetModel | None,
    load: Callable[[int], Student],
    guidance_scale: float,
) -> Pairing:
    """How students are judged by the prediction `wanted`; `control` is the teacher's ControlNet.

    Without guidance student and teacher are asked once. Else the teacher is guided, and the student
    asked as often as it is sampled.
    """
    expected = controlled(teacher.unet, control) if wanted.has_control else plain(teacher.unet)
    if not wanted.is_guided:
        return Pairing(expected, lambda seed: _native(load(seed), None), {"guidance": "none"})

    def student(seed: int) -> Predict:
        loaded = load(seed)
        predict = _native(loaded, guidance_scale)
        return guided(predict, guidance_scale) if loaded.is_guided else predict

    settings = {"guidance": f"teacher's scale {guidance_scale:g}, student as it is sampled"}
    return Pairing(guided(expected, guidance_scale), student, settings)


def _native(student: Student, scale: float | None) -> Predict:
    """One evaluation; a U-Net with a w-embedding is told the scale."""
    check_export(student.unet)
    if student.controlnet is not None:
        return controlled(student.unet, student.controlnet)
    if scale is not None and student.unet.config.time_cond_proj_dim:
        from distillery.models.lora.guidance_embedding import tell_scale

        tell_scale(student.unet, scale)
    return plain(student.unet)


def check_export(unet: UNet2DConditionModel) -> None:
    """The dense-merged form of a low-rank student must say the same, or DistilleryError.

    One with removed blocks has no such form, and is used as it is.
    """
    if isinstance(unet, LowRankUNet2DConditionModel) and not removed_in(unet.config):
        same_unet(unet, unet.to_dense())
