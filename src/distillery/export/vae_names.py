"""Names of the original Stable Diffusion code for the layers of the VAE.

In: a diffusers state dict. Out: the same tensors under the original names, without
`first_stage_model.`; attention's projections are 1 x 1 convolutions there. Source: `AutoencoderKL`
of latent diffusion (Rombach et al. 2022), whose decoder numbers its levels from the finest one.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from distillery.core.errors import DistilleryError

_KEPT = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out",
         "quant_conv", "post_quant_conv")  # fmt: skip
_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_DOWN = re.compile(r"encoder\.down_blocks\.(\d+)\.(?:resnets\.(\d+)\.(\w+)|downsamplers\.0\.conv)")
_UP = re.compile(r"decoder\.up_blocks\.(\d+)\.(?:resnets\.(\d+)\.(\w+)|upsamplers\.0\.conv)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(?:resnets\.(\d+)\.(\w+)|attentions\.0\.(.+))")


def original_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's tensors under their original names.

    Raises DistilleryError for a layer that the original architecture does not have.
    """
    levels = [int(match[1]) for match in map(_UP.match, state) if match]
    last = max(levels, default=0)
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        renamed[f"{_original(layer, last)}.{kind}"] = _as_convolution(layer, tensor)
    return renamed


def _original(layer: str, last_level: int) -> str:
    if layer in _KEPT:
        return layer
    if layer in ("encoder.conv_norm_out", "decoder.conv_norm_out"):
        return layer.replace("conv_norm_out", "norm_out")
    if match := _DOWN.fullmatch(layer):
        return _in_level(f"encoder.down.{match[1]}", match, "downsample")
    if match := _UP.fullmatch(layer):
        return _in_level(f"decoder.up.{last_level - int(match[1])}", match, "upsample")
    if match := _MIDDLE.fullmatch(layer):
        half, number, part, attention = match.groups()
        if number is not None:
            return f"{half}.mid.block_{int(number) + 1}.{_resnet(part)}"
        if attention in _ATTENTION:
            return f"{half}.mid.attn_1.{_ATTENTION[attention]}"
    raise DistilleryError(
        f"vae.{layer}: the original architecture has no such layer; export --to diffusers"
    )


def _in_level(level: str, match: re.Match, resampler: str) -> str:
    number, part = match[2], match[3]
    if number is None:
        return f"{level}.{resampler}.conv"
    return f"{level}.block.{number}.{_resnet(part)}"


def _resnet(part: str) -> str:
    return "nin_shortcut" if part == "conv_shortcut" else part


def _as_convolution(layer: str, tensor: Tensor) -> Tensor:
    is_projection = ".attentions.0.to_" in layer and tensor.ndim == 2
    return tensor[:, :, None, None] if is_projection else tensor
