"""The gate of equality: an export must answer as its student does, or it is not published.

In: two models of one kind. Out: the largest difference between their answers on inputs drawn from
fixed seeds, or an error. Not here: writing or loading them.
"""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn

from distillery.models.control_adapter.hints import VAE_SCALE
from distillery.models.export import assert_same_output

TOLERANCE = 1e-4
_TEXT_LENGTH = 8
_SIDE = 8  # of latents
_PX = _SIDE * VAE_SCALE  # of images


def same_unet(a: UNet2DConditionModel, b: UNet2DConditionModel) -> float:
    """Largest difference of two U-Nets' outputs on two latents [2, C, side, side].

    Raises DistilleryError if it exceeds `TOLERANCE`, as all of these do.
    """
    inputs = {name: value.to(a.device) for name, value in _unet_inputs(a.config).items()}
    return assert_same_output(a, b, inputs, TOLERANCE)


def same_controlnet(a: ControlNetModel, b: ControlNetModel) -> float:
    """Largest difference of two ControlNets' residuals, on latents [2, C, 8, 8], random maps."""
    config = {**a.config, "sample_size": _SIDE}
    shape = (2, config["conditioning_channels"], _PX, _PX)
    inputs = {**_unet_inputs(config), "controlnet_cond": torch.rand(shape, generator=_seeded())}

    def flat(model: nn.Module):
        def residuals(**arguments):
            down, mid = model(**arguments, return_dict=False)
            return torch.cat([tensor.flatten() for tensor in (*down, mid)])

        return residuals

    return assert_same_output(flat(a.eval()), flat(b.eval()), inputs, TOLERANCE)


def same_vae(a: AutoencoderKL, b: AutoencoderKL) -> float:
    """Largest difference of what two VAEs decode and encode."""
    latents = torch.randn(1, a.config.latent_channels, _SIDE, _SIDE, generator=_seeded())
    images = torch.rand(1, a.config.in_channels, _PX, _PX, generator=_seeded())
    decoded = assert_same_output(a.decode, b.decode, (latents,), TOLERANCE)
    means = [lambda x, vae=vae: vae.encode(x).latent_dist.mean for vae in (a, b)]
    return max(decoded, assert_same_output(*means, (images,), TOLERANCE))


def same_text_encoder(a: nn.Module, b: nn.Module) -> float:
    """Largest difference of two text encoders' embeddings."""
    size = (2, min(_TEXT_LENGTH, a.config.max_position_embeddings))
    tokens = torch.randint(a.config.vocab_size, size, generator=_seeded())
    return assert_same_output(a, b, (tokens,), TOLERANCE)


def _unet_inputs(config: Mapping) -> dict[str, torch.Tensor]:
    generator, side = _seeded(), config["sample_size"]
    inputs = {
        "sample": torch.randn(2, config["in_channels"], side, side, generator=generator),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(
            2, _TEXT_LENGTH, config["cross_attention_dim"], generator=generator
        ),
    }
    if config.get("time_cond_proj_dim"):
        shape = (2, config["time_cond_proj_dim"])
        inputs["timestep_cond"] = torch.randn(shape, generator=generator)
    return inputs


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
