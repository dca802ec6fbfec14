"""LoRA on a U-Net: adding it, switching it off for a while, merging it into the weights.

In: a dense or low-rank U-Net, a rank, which layers. Out: the same module with PEFT adapters, or
without them again. Sources: Hu et al. 2022, "LoRA"; PEFT does the arithmetic. Not here: files
(`files`), training.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.lowrank.unet import lora_targets

Targets = Literal["attention", "all"]
ADAPTER = "default"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def target_names(unet: nn.Module, targets: Targets) -> list[str]:
    """Full names of the Linear and Conv2d layers that get a LoRA.

    `attention`: the query, key, value and output projections (diffusers' own default for Stable
    Diffusion); `all`: every Linear and Conv2d. On a low-rank layer both factors get one.
    """
    if targets == "attention":
        return lora_targets(unet, list(ATTENTION))
    kinds = nn.Linear | nn.Conv2d
    return [name for name, module in unet.named_modules() if isinstance(module, kinds)]


def add_lora(
    unet: UNet2DConditionModel, *, r: int, alpha: float, targets: Targets, seed: int
) -> UNet2DConditionModel:
    """Freeze `unet` and add W + (alpha / r) B A to its target layers, in place; returns `unet`.

    A [r, fan_in] is random and depends on `seed` alone, B [out, r] is zero, so that nothing changes
    at first. Both are float32 whatever the base's dtype, and alone require a gradient.
    Raises DistilleryError if there are adapters already.
    """
    if lora_layers(unet):
        raise DistilleryError("this U-Net has a LoRA already; fuse it, or load the U-Net anew")
    unet.requires_grad_(False)
    names = target_names(unet, targets)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(config, ADAPTER)
    for parameter in lora_parameters(unet):
        parameter.data = parameter.data.float()
    return unet


def lora_layers(unet: nn.Module) -> dict[str, BaseTunerLayer]:
    """The layers that carry an adapter, by name."""
    return {n: m for n, m in unet.named_modules() if isinstance(m, BaseTunerLayer)}


def lora_parameters(unet: nn.Module) -> list[nn.Parameter]:
    """The adapters' own parameters, without the base's."""
    return [p for name, p in unet.named_parameters() if ".lora_" in name]


@contextlib.contextmanager
def adapters_off(unet: nn.Module) -> Iterator[nn.Module]:
    """For a while, `unet` is its base model, in eval mode; the block's failure undoes it too.

    Afterwards every adapter, `training` flag and `requires_grad` is as before. Outputs are the base
    model's bit for bit: PEFT calls the base layer alone.
    Raises DistilleryError without adapters: the teacher would be the student.
    """
    layers = lora_layers(unet).values()
    if not layers:
        raise DistilleryError("no LoRA to switch off in this U-Net; add one with add_lora")
    modes = [(module, module.training) for module in unet.modules()]
    switched = [layer for layer in layers if not layer.disable_adapters]
    trained = [(p, p.requires_grad) for p in lora_parameters(unet)]
    try:
        for layer in switched:
            layer.enable_adapters(False)
        unet.eval()
        yield unet
    finally:
        for layer in switched:
            layer.enable_adapters(True)
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training


def fuse_lora(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Add each LoRA to its layer's weight and take the adapters away, in place; returns `unet`.

    A low-rank U-Net stays low-rank: each factor keeps its size. Raises DistilleryError where a
    merged weight is not finite or where there is no LoRA.
    """
    layers = lora_layers(unet)
    if not layers:
        raise DistilleryError("no LoRA to fuse in this U-Net; load one first")
    for name, layer in layers.items():
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise DistilleryError(f"{name}: the LoRA has a NaN; train it again") from error
    unet.unload_lora()
    return unet
