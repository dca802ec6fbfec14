"""A U-Net that is told the guidance scale: its embedding, the input for it, a fixed value.

In: guidance scales, a U-Net. Out: embeddings, or a U-Net with diffusers' own `time_cond_proj_dim`,
which loads and samples in diffusers as it is. Source: Meng et al. 2023, "On Distillation of Guided
Diffusion Models", the w-embedding, in the form of LCM (Luo et al. 2023). Not here: training.
"""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

EMBEDDING_DIM = 256  # as in LCM
_INPUT = "timestep_cond"


def scale_embedding(scales: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding [n, dim] of guidance scales [n], for `timestep_cond`.

    Of 1000 (s - 1), as StableDiffusionPipeline computes it for a U-Net with `time_cond_proj_dim`
    (after Kingma et al. 2021, VDM), so that such a student runs there with any scale.
    """
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=scales.device) / (half - 1)
    angles = 1000 * (scales.float() - 1)[:, None] * 10000**-steps
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(embedding, (0, dim % 2))


def add_scale_embedding(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same function with an input for the scale's embedding, which has no effect yet.

    It is a bias-free projection added to the sinusoidal embedding of the timestep, zero at first.
    """
    config = {**unet.config, "time_cond_proj_dim": EMBEDDING_DIM}
    config.pop("_use_default_values", None)  # diffusers drops what it lists
    with torch.random.fork_rng(devices=[]):
        told = type(unet).from_config(config)
    projection = torch.zeros_like(told.time_embedding.cond_proj.weight)
    told.load_state_dict({**unet.state_dict(), "time_embedding.cond_proj.weight": projection})
    return told


def tell_scale(unet: UNet2DConditionModel, scale: float) -> UNet2DConditionModel:
    """Give `scale` to every call of `unet` that names no other, in place; returns `unet`.

    For samplers that know nothing of the input. No effect on a U-Net without it.
    """
    dim = unet.config.time_cond_proj_dim
    if dim is None:
        return unet

    def fill_in(module: nn.Module, args: tuple, options: dict) -> tuple[tuple, dict]:
        if options.get(_INPUT) is None:
            sample = args[0] if args else options["sample"]
            scales = torch.full((len(sample),), scale, device=sample.device)
            options = {**options, _INPUT: scale_embedding(scales, dim).to(sample.dtype)}
        return args, options

    unet.register_forward_pre_hook(fill_in, with_kwargs=True)
    return unet
