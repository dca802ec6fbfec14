"""What a variant's prediction is judged against, and its models behind the export gate.

In: `<family>/<variant>`, the teacher, folders of students. Out: prediction functions.

| family | student | its teacher |
|---|---|---|
| unet | its U-Net | the teacher's U-Net, no guidance |
| guidance | its U-Net, one evaluation | the guided teacher |
| teacher/unguided | the teacher's U-Net, no guidance | the guided teacher |
| controlnet | the teacher's U-Net, student's control | the same, teacher's control |
| whole | guidance student with student's control | the guided teacher with its control |

Not here: distances.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.artifacts import read_json
from distillery.export import assert_same_output
from distillery.metrics.prediction import Predict, Question, controlled, guided, plain
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.sampling import load_unet
from distillery.teacher.load import Teacher, load_controlnet

EXPORT_TOLERANCE = 1e-4
FAMILIES = ("unet", "guidance", "controlnet", "whole")
WITH_MAPS = ("controlnet", "whole")


@dataclass(frozen=True)
class Pairing:
    """What is compared: the teacher's prediction, and a student's from the folder of one seed."""

    expected: Predict
    student: Callable[[Path], Predict]
    settings: dict[str, Any]


def pairing(
    variant: str,
    teacher: Teacher,
    teacher_folder: Path,
    backbone: Path | None,
    controlnet: Path | None,
    *,
    kind: str,
    guidance_scale: float,
) -> Pairing:
    """How the prediction of a variant of `FAMILIES`, or of the unguided teacher, is judged.

    `backbone` is the folder of the U-Net that a LoRA was trained on (the teacher's by default),
    `controlnet` that of a whole pipeline's ControlNet, `kind` the condition of a ControlNet.
    """
    unet, device, family = teacher.unet, teacher.unet.device, variant.partition("/")[0]
    base = teacher_folder if backbone is None else backbone
    at_scale = {"guidance": f"teacher's scale {guidance_scale:g}, student in one evaluation"}
    if family == "teacher":
        return Pairing(guided(plain(unet), guidance_scale), lambda folder: plain(unet), at_scale)
    if family == "unet":
        without = {"guidance": "none"}
        return Pairing(plain(unet), lambda folder: plain(checked_unet(folder, device)), without)
    if family == "guidance":

        def student(folder: Path) -> Predict:
            return _one_evaluation(_guidance_unet(folder, base, device), guidance_scale)

        return Pairing(guided(plain(unet), guidance_scale), student, at_scale)
    expected = controlled(unet, load_controlnet(teacher_folder, kind, unet))
    if family == "controlnet":
        settings = {"guidance": "none", "condition": kind}
        return Pairing(
            expected, lambda folder: controlled(unet, _controlnet(folder, device)), settings
        )

    def whole(folder: Path) -> Predict:
        return controlled(_guidance_unet(folder, base, device), _controlnet(controlnet, device))

    return Pairing(guided(expected, guidance_scale), whole, {**at_scale, "condition": kind})


def checked_unet(folder: Path, device: torch.device) -> UNet2DConditionModel:
    """A student's U-Net, behind the export gate."""
    unet = load_unet(folder, device)
    check_export(unet)
    return unet


def _guidance_unet(folder: Path, backbone: Path, device: torch.device) -> UNet2DConditionModel:
    """A guidance student; its backbone is a teacher's folder or a student's U-Net."""
    from distillery.models.lora_files import load_guidance_unet

    base = backbone / "unet" if (backbone / "unet").is_dir() else backbone
    return load_guidance_unet(folder, load_unet(base, device))


def _one_evaluation(unet: UNet2DConditionModel, scale: float) -> Predict:
    """The student's output; one with a w-embedding is told the scale."""
    if not (dim := unet.config.time_cond_proj_dim):
        return plain(unet)
    from distillery.train.guidance import scale_embedding

    def predict(q: Question) -> torch.Tensor:
        scales = torch.full((len(q.noisy),), scale, device=q.noisy.device)
        told = scale_embedding(scales, dim).to(q.noisy.dtype)
        output = unet(q.noisy, q.timesteps, encoder_hidden_states=q.text, timestep_cond=told)
        return output.sample

    return predict


def _controlnet(folder: Path, device: torch.device) -> ControlNetModel:
    """A student's or a dense ControlNet, as its config.json says."""
    name = read_json(folder / "config.json").get("_class_name")
    if name == ControlNetModel.__name__:
        kind = ControlNetModel
    else:
        from distillery.models.student_controlnet import StudentControlNet

        kind = StudentControlNet
    model = kind.from_pretrained(folder, use_safetensors=True)
    return model.to(device).requires_grad_(False).eval()


def check_export(unet: UNet2DConditionModel) -> None:
    """The dense-merged form of a low-rank student must say the same, or DistilleryError."""
    if not isinstance(unet, LowRankUNet2DConditionModel):
        return
    config, generator = unet.config, torch.Generator().manual_seed(0)
    side = config.sample_size
    inputs = {
        "sample": torch.randn(2, config.in_channels, side, side, generator=generator),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(2, 8, config.cross_attention_dim, generator=generator),
    }
    inputs = {name: value.to(unet.device) for name, value in inputs.items()}
    assert_same_output(unet, unet.to_dense(), inputs, EXPORT_TOLERANCE)
