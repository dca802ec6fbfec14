"""Names of the original Stable Diffusion code for the layers of a U-Net or a ControlNet.

In: the keys of a diffusers state dict. Out: {key: original key}, derived from the layers that are
there, so for any number of levels and layers. Source: the numbering of `openaimodel.UNetModel`
(Rombach et al. 2022), which counts the input and output blocks one by one. Not here: tensors.
"""

from collections.abc import Iterable, Iterator, Mapping

from distillery.core.errors import DistilleryError

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
Modules = dict[str, str]  # {prefix of diffusers' keys: prefix of the original ones}


def unet_names(keys: Iterable[str]) -> dict[str, str]:
    """{key: original key} of a dense U-Net, without `model.diffusion_model.`.

    Raises DistilleryError for a layer that the original architecture does not have.
    """
    keys = list(keys)
    modules = {**_OUTSIDE, **dict(down_modules(keys)), **middle_modules(keys), **_up_modules(keys)}
    return renamed(keys, modules)


def down_modules(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Down blocks: each ResNet, with its transformer, and each downsampler is an input block."""
    layers, index = set(map(_layer, keys)), 1
    for level in range(_count(layers, "down_blocks.{}.")):
        block = f"down_blocks.{level}"
        for number in range(_count(layers, f"{block}.resnets.{{}}.")):
            yield f"{block}.resnets.{number}", f"input_blocks.{index}.0"
            yield f"{block}.attentions.{number}", f"input_blocks.{index}.1"
            index += 1
        if _any(layers, f"{block}.downsamplers.0."):
            yield f"{block}.downsamplers.0.conv", f"input_blocks.{index}.0.op"
            index += 1


def middle_modules(keys: Iterable[str]) -> Modules:
    """The middle block, a list of ResNet, transformer, ResNet.

    Raises DistilleryError where it has no transformer: the original has one.
    """
    if not _any(keys, "mid_block.attentions.0."):
        raise DistilleryError(
            "the middle block has no transformer, which the original architecture has; "
            "export --to diffusers"
        )
    return {
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }


def _up_modules(keys: Iterable[str]) -> Modules:
    """Up blocks: each ResNet is an output block; the last one of a level holds the upsampler."""
    layers, index, modules = set(map(_layer, keys)), 0, {}
    for level in range(_count(layers, "up_blocks.{}.")):
        block = f"up_blocks.{level}"
        for number in range(_count(layers, f"{block}.resnets.{{}}.")):
            modules[f"{block}.resnets.{number}"] = f"output_blocks.{index}.0"
            modules[f"{block}.attentions.{number}"] = f"output_blocks.{index}.1"
            index += 1
        place = 2 if _any(layers, f"{block}.attentions.0.") else 1
        modules[f"{block}.upsamplers.0.conv"] = f"output_blocks.{index - 1}.{place}.conv"
    return modules


def renamed(keys: Iterable[str], modules: Mapping[str, str]) -> dict[str, str]:
    """{key: original key} by the modules' names; what is in a ResNet has names of its own.

    Raises DistilleryError for a key that belongs to none of `modules`.
    """
    names = {}
    for key in keys:
        module = next((m for m in modules if key.startswith(f"{m}.")), None)
        rest = key[len(module) + 1 :] if module else key
        if module and ".resnets." in f".{module}":
            first = rest.partition(".")[0]
            rest = rest.replace(first, _RESNET[first], 1) if first in _RESNET else None
        if not module or rest is None:
            raise DistilleryError(
                f"{key}: the original architecture has no such layer; export --to diffusers"
            )
        names[key] = f"{modules[module]}.{rest}"
    return names


def _layer(key: str) -> str:
    return key.rpartition(".")[0] + "."


def _any(keys: Iterable[str], start: str) -> bool:
    return any(key.startswith(start) for key in keys)


def _count(layers: set[str], pattern: str) -> int:
    """How many of `pattern` with 0, 1, ... in its place there are."""
    number = 0
    while _any(layers, pattern.format(number)):
        number += 1
    return number
