"""A U-Net that is told a negative prompt: the input for it, its one matrix, its file.

In: a U-Net, and in a call what the negative prompt's embedding differs by from the empty one's.
Out: the U-Net's answer, in one evaluation. The difference is multiplied by a matrix, zero at first,
and added to the prompt's embedding token by token: without a negative prompt the U-Net is what it
was, and so it is where the file is left out. Not here: training.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.core.weights import require_recorded

NEGATIVE_FILE = "negative_prompt.safetensors"
ARGUMENT = "negative_difference"
_NAME, _WEIGHT = "negative_prompt", "weight"
_TEXT = "encoder_hidden_states"


def add_negative(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Give `unet` the input `negative_difference` [n, length, width], in place; returns `unet`.

    Its matrix is float32, zero, and requires a gradient. Raises DistilleryError for a U-Net whose
    blocks see texts of several widths.
    """
    width = unet.config.cross_attention_dim
    if not isinstance(width, int):
        raise DistilleryError("negative prompts: this U-Net's blocks see texts of several widths")
    device = next(unet.parameters()).device
    layer = nn.Linear(width, width, bias=False, device=device)
    nn.init.zeros_(layer.weight)
    unet.add_module(_NAME, layer)
    unet.register_forward_pre_hook(_add_difference, with_kwargs=True)
    return unet


def takes_negative(unet: nn.Module) -> bool:
    """Whether it has the input."""
    return hasattr(unet, _NAME)


def _add_difference(unet: nn.Module, args: tuple, options: dict[str, Any]) -> tuple[tuple, dict]:
    options = dict(options)
    difference = options.pop(ARGUMENT, None)
    if difference is not None:
        layer, text = getattr(unet, _NAME), options[_TEXT]
        options[_TEXT] = text + layer(difference.to(layer.weight.dtype)).to(text.dtype)
    return args, options


@contextlib.contextmanager
def without_negative(unet: nn.Module) -> Iterator[nn.Module]:
    """For a while, `unet` has no such matrix: what is saved then is a plain model."""
    layer = unet._modules.pop(_NAME, None)
    try:
        yield unet
    finally:
        if layer is not None:
            unet.add_module(_NAME, layer)


def save_negative(unet: nn.Module, folder: str | Path) -> None:
    """Write the matrix to `negative_prompt.safetensors`."""
    weight = getattr(unet, _NAME).weight.detach().float().cpu().contiguous()
    save_file({_WEIGHT: weight}, Path(folder) / NEGATIVE_FILE)


@torch.no_grad()
def load_negative(unet: UNet2DConditionModel, folder: str | Path) -> UNet2DConditionModel:
    """`unet` with the input, in place, and the matrix in `folder`; returns `unet`.

    Raises DistilleryError where the folder has none, or one of another width.
    """
    path = Path(folder) / NEGATIVE_FILE
    if not path.is_file():
        raise DistilleryError(f"{path}: not found; run distill_guidance again")
    require_recorded(path)
    weight, dtype = load_file(path)[_WEIGHT], unet.dtype
    add_negative(unet)
    layer = getattr(unet, _NAME)
    if weight.shape != layer.weight.shape:
        raise DistilleryError(f"{path}: of width {len(weight)}, not {len(layer.weight)}")
    layer.weight.copy_(weight)
    layer.to(dtype)
    return unet
