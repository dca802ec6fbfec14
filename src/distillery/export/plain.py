"""Students as folders that diffusers loads alone.

In: a student's U-Net and the teacher it replaces one in, or a student ControlNet. Out: the folder
of a pipeline, the low-rank U-Net merged dense, or of a `ControlNetModel`, each shown to be equal
before it has its name.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel

from distillery.core.publishing import publish
from distillery.export.controlnet_names import plain_controlnet
from distillery.models.export import save_model
from distillery.models.gate import same_controlnet, same_unet
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.teacher.load import load_module


def dense_unet(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """`unet`, a low-rank one merged; DistilleryError if the merged one answers otherwise."""
    if not isinstance(unet, LowRankUNet2DConditionModel):
        return unet
    dense = unet.to_dense().eval()
    same_unet(unet, dense)
    return dense


def pipeline_around(unet: UNet2DConditionModel, teacher: Path) -> StableDiffusionPipeline:
    """The teacher's pipeline with `unet`, in float32, without a safety checker."""
    return StableDiffusionPipeline.from_pretrained(
        teacher,
        unet=unet,
        vae=load_module(AutoencoderKL, teacher, "vae", "cpu", torch.float32),
        text_encoder=load_module(CLIPTextModel, teacher, "text_encoder", "cpu", torch.float32),
        torch_dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        requires_safety_checker=False,
    )


def write_pipeline(unet: UNet2DConditionModel, teacher: Path, out: Path) -> Path:
    """The folder `out` for `StableDiffusionPipeline.from_pretrained`, in plain diffusers.

    Raises DistilleryError where what was written answers otherwise than `unet`.
    """
    dense = dense_unet(unet)
    with publish(out) as partial:
        save_model(pipeline_around(dense, teacher), partial)
        same_unet(dense, UNet2DConditionModel.from_pretrained(partial / "unet"))
    return out


def write_controlnet(controlnet: ControlNetModel, out: Path) -> Path:
    """The folder `out` for `ControlNetModel.from_pretrained`.

    Raises DistilleryError where plain ControlNets have no layers for the student's.
    """
    plain = plain_controlnet(controlnet)
    with publish(out) as partial:
        save_model(plain, partial)
        same_controlnet(plain, ControlNetModel.from_pretrained(partial))
    return out
