"""The parts of a U-Net that a latency table is made of: layers, blocks, the whole.

In: a U-Net on any device, the size of its latents, the length of its texts. Out: for every Linear
and Conv2d, and every block that may be removed, a key that says all that its time depends on. Equal
keys are timed once: Stable Diffusion 1.5 has 282 layers of 54 shapes. Nothing is timed here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from distillery.cost.workload import Workload
from distillery.models.layers import LayerShape, is_factorable, low_rank_like
from distillery.models.lowrank.removed import is_gone, removable_blocks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

MAX_RANKS = 10


@dataclass(frozen=True)
class Unit:
    """A module on the meta device, and the shapes of one call of it for one image."""

    key: str
    module: nn.Module
    inputs: tuple[tuple[int, ...] | None, ...]
    named: Mapping[str, tuple[int, ...] | bool] = field(default_factory=dict)

    def call(self, module: nn.Module, tensors: "Tensors") -> Any:
        """Evaluate `module`, this unit's or one of its size, on inputs that `tensors` makes."""
        return module(
            *(None if shape is None else tensors(shape) for shape in self.inputs),
            **{k: tensors(v) if isinstance(v, tuple) else v for k, v in self.named.items()},
        )


class Tensors:
    """Makes inputs: shapes of one image in, random tensors of a whole batch out, made once."""

    def __init__(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        self.batch_size, self.device, self.dtype = batch_size, device, dtype
        self._made: dict[tuple[int, ...], Tensor] = {}
        self.channels_last = False

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._made:
            make = torch.empty if self.device.type == "meta" else torch.randn
            tensor = make(self.batch_size, *shape[1:], device=self.device, dtype=self.dtype)
            if self.channels_last and tensor.ndim == 4:
                tensor = tensor.to(memory_format=torch.channels_last)
            self._made[shape] = tensor
        return self._made[shape]


@dataclass(frozen=True)
class Anatomy:
    """Layers and removable blocks by name, the whole, and the shape of every layer's weight."""

    layers: Mapping[str, Unit]
    blocks: Mapping[str, Unit]
    model: Unit
    shapes: Mapping[str, LayerShape]

    def layers_of(self, block: str) -> list[str]:
        """The layers of a block, its shortcut included."""
        return [name for name in self.layers if name.startswith(f"{block}.")]

    def layers_gone_with(self, block: str) -> list[str]:
        """The layers that disappear when a block is removed; its shortcut stays."""
        return [name for name in self.layers_of(block) if is_gone(name, [block])]


@torch.no_grad()
def anatomy(unet: UNet2DConditionModel, *, side: int, num_tokens: int) -> Anatomy:
    """Take the dense form of `unet` apart, for latents of `side` x `side`; a second on meta."""
    dense = LowRankUNet2DConditionModel.empty(unet.config, {}).to("meta").eval()
    layers = {n: m for n, m in dense.named_modules() if is_factorable(m)}
    blocks = removable_blocks(dense)
    calls: dict[str, tuple] = {}
    hooks = [
        module.register_forward_hook(_recorder(name, calls), with_kwargs=True)
        for name, module in {**layers, **blocks}.items()
    ]
    work = Workload.of(dense, 1, num_tokens, side=side, device=torch.device("meta"))
    work.run(dense)
    for hook in hooks:
        hook.remove()
    shapes = {
        n: LayerShape(m.weight.shape[0], math.prod(m.weight.shape[1:])) for n, m in layers.items()
    }
    whole = Unit(
        _model_key(dense.config, side, num_tokens), dense, (tuple(work.sample.shape), (1,)),
        {"encoder_hidden_states": tuple(work.encoder_hidden_states.shape)},
    )  # fmt: skip
    layer_units = {n: Unit(_layer_key(m, calls[n][0][0]), m, *calls[n]) for n, m in layers.items()}
    block_units = {n: Unit(_block_key(m, *calls[n]), m, *calls[n]) for n, m in blocks.items()}
    return Anatomy(layer_units, block_units, whole, shapes)


def _recorder(name: str, calls: dict[str, tuple]) -> Any:
    def record(module: nn.Module, args: tuple, named: dict, output: Any) -> None:
        given = {k: tuple(v.shape) for k, v in named.items() if isinstance(v, Tensor)}
        given |= {k: v for k, v in named.items() if isinstance(v, bool)}
        calls[name] = (tuple(None if a is None else tuple(a.shape) for a in args), given)

    return record


def _layer_key(layer: nn.Module, shape: Sequence[int]) -> str:
    if isinstance(layer, nn.Linear):
        rows = math.prod(shape[1:-1])
        return f"linear {layer.in_features}>{layer.out_features} @{rows}"
    kernel, stride = ("x".join(map(str, size)) for size in (layer.kernel_size, layer.stride))
    size = "x".join(map(str, shape[2:]))
    return f"conv {layer.in_channels}>{layer.out_channels} {kernel} /{stride} @{size}"


def _block_key(block: nn.Module, args: tuple, named: Mapping) -> str:
    size = "x".join(map(str, args[0][2:]))
    if isinstance(block, ResnetBlock2D):
        return f"resnet {block.in_channels}>{block.out_channels} time {args[1][-1]} @{size}"
    deep, heads = len(block.transformer_blocks), block.transformer_blocks[0].attn1.heads
    text = "x".join(map(str, named.get("encoder_hidden_states", ())[1:])) or "none"
    linear = ", linear" if isinstance(block.proj_in, nn.Linear) else ""
    return f"attention {args[0][1]}, {heads} heads, {deep} deep, text {text}{linear} @{size}"


def _model_key(config: Mapping, side: int, num_tokens: int) -> str:
    widths = "-".join(map(str, config["block_out_channels"]))
    text = f"text {num_tokens}x{config['cross_attention_dim']}"
    heads = config["num_attention_heads"] or config["attention_head_dim"]
    heads = "-".join(map(str, heads)) if isinstance(heads, list | tuple) else heads
    return f"unet {widths}, {config['layers_per_block']} deep, {heads} heads, {text} @{side}x{side}"


def rank_grid(shape: LayerShape, multiple_of: int) -> list[int]:
    """Ranks to time: `aligned_ranks`, or `MAX_RANKS` of them spread evenly.

    A layer too small for any has a third of its rank timed, for students that other rules made.
    """
    ranks = aligned_ranks(shape, multiple_of) or [max(1, shape.full_rank // 3)]
    if len(ranks) <= MAX_RANKS:
        return ranks
    places = [round(i * (len(ranks) - 1) / (MAX_RANKS - 1)) for i in range(MAX_RANKS)]
    return [ranks[place] for place in places]


def aligned_ranks(shape: LayerShape, multiple_of: int) -> list[int]:
    """Every multiple of `multiple_of` at which the factors are smaller than the dense layer."""
    ranks = range(multiple_of, shape.full_rank + 1, multiple_of)
    return [rank for rank in ranks if shape.num_low_rank(rank) < shape.num_dense]


def form_of(unit: Unit, rank: int | None) -> nn.Module:
    """A layer's module in one form on the meta device; None is dense."""
    return unit.module if rank is None else low_rank_like(unit.module, rank)
