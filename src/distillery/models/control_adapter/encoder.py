"""The encoder half of a Stable Diffusion U-Net: its settings, its layers, its forward pass.

In: the configuration or the weights of a dense or low-rank U-Net. Out: the arguments and tensors
of a copy, and the features before each skip connection. Not here: conditions, zero convolutions.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.control_adapter.features import inject
from distillery.models.layers import LowRankLayer, is_factorable

ENCODER = ("conv_in", "time_embedding", "down_blocks", "mid_block")
_DOWN_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")
_DECODER_ONLY = {
    "sample_size", "out_channels", "up_block_types", "reverse_transformer_layers_per_block",
    "ranks",
}  # fmt: skip
_UNSUPPORTED = (
    "class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim",
    "encoder_hid_dim_type", "only_cross_attention",
)  # fmt: skip


def is_encoder(name: str) -> bool:
    """Whether a parameter or layer of a U-Net or its adapter belongs to the encoder."""
    return name.split(".")[0] in ENCODER


def encoder_ranks(ranks: Mapping[str, int] | None) -> dict[str, int]:
    """The ranks of the encoder's layers among a U-Net's."""
    return {name: rank for name, rank in (ranks or {}).items() if is_encoder(name)}


def encoder_arguments(config: Mapping) -> dict:
    """The arguments of `ControlNetModel` for the encoder of a U-Net with this configuration.

    Raises DistilleryError for anything a Stable Diffusion 1.x or 2.x U-Net does not have.
    """
    known = set(_defaults(ControlNetModel))
    defaults = _defaults(UNet2DConditionModel)
    plain = {n: d for n, d in defaults.items() if n not in known | _DECODER_ONLY}
    plain |= {name: defaults[name] for name in _UNSUPPORTED}
    for name, default in plain.items():
        if config.get(name, default) != default:
            raise DistilleryError(
                f"control adapter: U-Nets with {name}={config[name]!r} are not supported; "
                "use a U-Net of the kind of Stable Diffusion 1.x or 2.x"
            )
    if unknown := set(config.get("down_block_types", ())) - set(_DOWN_BLOCKS):
        raise DistilleryError(f"control adapter: down blocks {sorted(unknown)} are not supported")
    names = (known & set(defaults)) - set(_UNSUPPORTED)
    return {name: config[name] for name in sorted(names) if name in config}


def _defaults(kind: type) -> dict:
    parameters = inspect.signature(kind.__init__).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def encoder_state(unet: nn.Module, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `unet` for the names in `wanted`, the adapter's state, that its encoder has.

    The norms inside feature denormalisations are one name deeper there.
    """
    state = {name: tensor for name, tensor in unet.state_dict().items() if is_encoder(name)}
    sources = {name: _source(name) for name in wanted if is_encoder(name)}
    return {name: state[source] for name, source in sources.items() if source in state}


def _source(name: str) -> str:
    return name.replace(".norm1.norm.", ".norm1.").replace(".norm2.norm.", ".norm2.")


def encoder_layers(adapter: nn.Module) -> list[str]:
    """Names of the copied Linear, Conv2d and low-rank layers; a low-rank layer is one of them."""
    names, inside = [], ()
    for name, module in adapter.named_modules():
        if not is_encoder(name) or ".phi_" in name or name.startswith(inside or "\0"):
            continue
        if isinstance(module, LowRankLayer):
            inside = f"{name}."
        if isinstance(module, LowRankLayer) or is_factorable(module):
            names.append(name)
    return names


def encode(
    encoder: nn.Module,
    x: Tensor,
    time: Tensor,
    text: Tensor,
    features: Sequence[Tensor],
    attention: Mapping,
) -> tuple[list[Tensor], Tensor]:
    """Features before each skip connection, and those of the middle block.

    `x` is the noisy sample [n, C, h, w], `time` the embedding [n, width], `text` [n, length,
    width]; `features` hold one map per level, which go into the first ResNet block's two norms.
    `attention` are further arguments of the attention blocks.
    """
    x = encoder.conv_in(x)
    skips = [x]
    for block, feature in zip(encoder.down_blocks, features, strict=True):
        outputs = _down(block, x, time, text, feature, attention)
        skips, x = [*skips, *outputs], outputs[-1]
    middle = encoder.mid_block(x, time, encoder_hidden_states=text, **attention)
    return skips, middle


def _down(
    block: nn.Module, x: Tensor, time: Tensor, text: Tensor, feature: Tensor, attention: Mapping
) -> list[Tensor]:
    """`CrossAttnDownBlock2D` and `DownBlock2D` with features in the first ResNet block."""
    attentions = getattr(block, "attentions", [None] * len(block.resnets))
    outputs = []
    for resnet, attend in zip(block.resnets, attentions, strict=True):
        if outputs:
            x = _checkpointed(block, resnet, x, time)
        else:
            x = _checkpointed(block, functools.partial(inject, resnet), x, time, feature)
        if attend is not None:
            x = attend(x, encoder_hidden_states=text, return_dict=False, **attention)[0]
        outputs.append(x)
    for downsample in block.downsamplers or ():
        outputs.append(downsample(outputs[-1]))
    return outputs


def _checkpointed(block: nn.Module, function, *args: Tensor) -> Tensor:
    if torch.is_grad_enabled() and block.gradient_checkpointing:
        return block._gradient_checkpointing_func(function, *args)
    return function(*args)
