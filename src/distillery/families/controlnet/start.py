"""The starting point of a student ControlNet: whose weights it takes, and how it sees its hints.

In: the teacher's folder, a named architecture or settings, training maps. Out: a ControlNet whose
residuals are exactly zero. Not here: the architectures, how weights are thinned out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ControlNetModel
from torch import Tensor

from distillery.models.load import load_unet
from distillery.models.normalise import normalise_hint_network
from distillery.models.student_controlnet.model import PRESETS, build_student
from distillery.teacher.load import load_teacher_controlnet

Init = Literal["teacher", "unet", "random"]
ORIGINAL = "original"


def start_student(
    student: str | Mapping[str, Any],
    init: Init,
    *,
    teacher: Path,
    kind: str,
    hints: Tensor,
    seed: int,
) -> ControlNetModel:
    """A student of the teacher's ControlNet for maps of `kind`, before its first step.

    teacher  weights are the teacher ControlNet's, thinned out
    unet     they are the U-Net's encoder's; `original` then is a plain `ControlNetModel`, the way
             ControlNets are trained (Zhang et al. 2023, arXiv 2302.05543)
    random   they depend on `seed` alone
    A hint network that is not the teacher's is made to pass on `hints` (n, 3, H, W): by default it
    fades them, and a short training sees nothing of them.
    """
    unet = load_unet(teacher)
    source = load_teacher_controlnet(teacher, kind, unet)
    if init == "unet":
        source = _from_unet(unet, source.config, hints, seed)
        if student == ORIGINAL:
            return source
    made = build_student(source, student_settings(student, init), seed)
    made.requires_grad_(True)
    if init == "random":
        normalise_hint_network(made, hints)
    return made


def student_settings(student: str | Mapping[str, Any], init: Init) -> dict[str, Any]:
    """Settings of `models.student_controlnet` for a named architecture or its own settings."""
    settings = PRESETS[student] if isinstance(student, str) else student
    return {**settings, "init": "random" if init == "random" else "teacher"}


def _from_unet(unet: Any, config: Mapping[str, Any], hints: Tensor, seed: int) -> ControlNetModel:
    """The U-Net's encoder as a ControlNet with the inputs of the one described by `config`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ControlNetModel.from_unet(
            unet,
            controlnet_conditioning_channel_order=config["controlnet_conditioning_channel_order"],
            conditioning_embedding_out_channels=config["conditioning_embedding_out_channels"],
            conditioning_channels=config["conditioning_channels"],
        )
        normalise_hint_network(made, hints)
    return made
