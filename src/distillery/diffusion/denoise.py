"""The two calls of a network, a U-Net's evaluation and a ControlNet's, and guidance.

In: a network, noisy latents, timesteps, `Conditioning`, maps or residuals. Out: the native output,
or residuals. Nothing else in the project names the arguments of diffusers' `forward`. All that
goes in is cast to the dtype of `sample`, so who calls a network of narrower weights casts the
sample. Gradients and what outputs mean are the callers'.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from distillery.diffusion.conditioning import NEGATIVE, SCALE, TEXT, Conditioning

# The last is no argument of diffusers': `models.lora.negative` adds it to a U-Net.
_ARGUMENTS = {
    TEXT: "encoder_hidden_states",
    SCALE: "timestep_cond",
    NEGATIVE: "negative_difference",
}


def denoise(
    unet: nn.Module,
    sample: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
    control: Sequence[Tensor] | None = None,
) -> Tensor:
    """The U-Net's native output [n, C, h, w], eps or v, in the dtype of `sample` [n, C, h, w].

    `timestep` is one number or [n]; `control` are a ControlNet's residuals as `control_residuals`
    gives them, added inside the U-Net.
    """
    arguments = _arguments(conditioning, sample)
    if control is not None:
        *down, mid = [residual.to(sample.dtype) for residual in control]
        arguments["down_block_additional_residuals"] = down
        arguments["mid_block_additional_residual"] = mid
    return unet(sample, timestep, **arguments).sample


def combine(without: Tensor, with_text: Tensor, scale: Tensor | float) -> Tensor:
    """Classifier-free guidance of two native outputs: Ho & Salimans 2022, eq. 6."""
    return without + scale * (with_text - without)


def control_residuals(
    controlnet: nn.Module,
    sample: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
    hint: Tensor,
) -> list[Tensor]:
    """What a ControlNet adds to the U-Net: [n, C, h, w] each, down blocks first, mid block last.

    `hint` [n, 3 x number of kinds, H, W] holds condition maps in [0, 1]. A ControlNet is told no
    negative prompt.
    """
    told = {name: rows for name, rows in conditioning.items() if name != NEGATIVE}
    down, mid = controlnet(
        sample,
        timestep,
        controlnet_cond=hint.to(sample.dtype),
        return_dict=False,
        **_arguments(told, sample),
    )
    return [*down, mid]


def _arguments(conditioning: Conditioning, sample: Tensor) -> dict:
    return {_ARGUMENTS[name]: rows.to(sample.dtype) for name, rows in conditioning.items()}
