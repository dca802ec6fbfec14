"""Teachers for the benchmarks: a folder's, or random weights at Stable Diffusion's real shapes.

In: a folder or an architecture (`sd15`, `sd21`), a device. Out: a `Teacher`, and a ControlNet for
its U-Net. Time does not depend on the weights. The tokenizer is the shipped scenes teacher's,
padded to the text encoder's length: CLIP's own vocabulary is not needed for timing.
"""

import argparse
from pathlib import Path

import torch
from diffusers import ControlNetModel, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTokenizer

from distillery.cost.full_size.device import materialise
from distillery.models.architectures import ARCHITECTURES, build_meta
from distillery.teacher.load import Teacher, load_teacher, load_teacher_controlnet

SCENES = Path("data/scenes-sd")


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--teacher FOLDER` or `--arch NAME`."""
    parser.add_argument("--teacher", type=Path, default=SCENES)
    parser.add_argument("--arch", choices=ARCHITECTURES, help="random weights at these shapes")


def open_teacher(args: argparse.Namespace) -> Teacher:
    """What `--arch` or `--teacher` names, in float32 on `args.device`."""
    if args.arch is None:
        return load_teacher(args.teacher, args.device, torch.float32)
    parts = {name: _random(part, args.device) for name, part in build_meta(args.arch).items()}
    length = parts["text_encoder"].config.max_position_embeddings
    return Teacher(
        tokenizer=CLIPTokenizer.from_pretrained(SCENES / "tokenizer", model_max_length=length),
        scheduler=DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
        ),
        **parts,
    )


def open_controlnet(args: argparse.Namespace, kind: str, unet: UNet2DConditionModel) -> nn.Module:
    """The teacher's ControlNet of a kind, or a random one for the U-Net."""
    if args.arch is None:
        return load_teacher_controlnet(args.teacher, kind, unet)
    with torch.device("meta"):
        controlnet = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    return _random(controlnet, args.device)


def _random(module: nn.Module, device: str) -> nn.Module:
    materialise([module], torch.device(device))
    return module.requires_grad_(False).eval()
