"""Tiny U-Nets of all kinds, inputs for an adapter and what the backbone's encoder gives."""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_unet

KRONECKER = {"n": 4, "r": 2, "alpha": 2.0, "share_A": True, "zero": "v", "indivisible": "error"}


def low_rank_unet() -> LowRankUNet2DConditionModel:
    dense = tiny_unet()
    return factorise_unet(dense, plan_ranks(dense))[0].eval()


def inputs(num_samples: int = 2, px: int = 64, seed: int = 1) -> tuple[Tensor, ...]:
    """Latents, timesteps, text and a hint of three conditions."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(num_samples, 16, px // 8, px // 8, generator=generator)
    timesteps = torch.randint(0, 1000, (num_samples,), generator=generator)
    text = torch.randn(num_samples, 5, 32, generator=generator)
    return latents, timesteps, text, torch.rand(num_samples, 9, px, px, generator=generator)


@torch.no_grad()
def encoder_features(unet: UNet2DConditionModel, *arguments: Tensor) -> list[Tensor]:
    """What the U-Net's own encoder gives its skip connections and middle block, read by hooks."""
    found: list[Tensor] = []
    hooks = [unet.conv_in.register_forward_hook(lambda m, a, out: found.append(out))]
    for block in unet.down_blocks:
        hooks.append(block.register_forward_hook(lambda m, a, out: found.extend(out[1])))
    hooks.append(unet.mid_block.register_forward_hook(lambda m, a, out: found.append(out)))
    unet(*arguments)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def pass_through(adapter: nn.Module) -> nn.Module:
    """Make the zero convolutions identities, so that residuals are the encoder's features."""
    for conv in [*adapter.controlnet_down_blocks, adapter.controlnet_mid_block]:
        nn.init.dirac_(conv.weight)
    return adapter


@torch.no_grad()
def trained(adapter: nn.Module, seed: int = 3) -> nn.Module:
    """As after a training: nothing is zero any more."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return adapter
