"""Low-rank stand-ins for `nn.Linear` and `nn.Conv2d`, and dense layers described by their shape.

In: a dense layer (on any device, meta included) and a rank. Out: a layer of the same signature with
two small factors. Values come from `decompose`; nothing here computes a decomposition.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError


@dataclass(frozen=True)
class LayerShape:
    """A dense layer's weight as a matrix of `out` rows and `fan_in` = in * kh * kw columns."""

    out: int
    fan_in: int

    @property
    def full_rank(self) -> int:
        return min(self.out, self.fan_in)

    @property
    def num_dense(self) -> int:
        """Weight parameters of the dense layer (the bias is the same in both forms)."""
        return self.out * self.fan_in

    def num_low_rank(self, rank: int) -> int:
        """Weight parameters of the two factors at `rank`."""
        return rank * (self.out + self.fan_in)


def is_factorable(module: nn.Module) -> bool:
    """Whether a module is a Linear or an ungrouped Conv2d, the layers that ELR decomposes."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv2d) and module.groups == 1


def layer_shapes(model: nn.Module) -> dict[str, LayerShape]:
    """Shapes of every Linear and ungrouped Conv2d of `model` by name, in definition order."""
    return {
        name: LayerShape(module.weight.shape[0], math.prod(module.weight.shape[1:]))
        for name, module in model.named_modules()
        if is_factorable(module)
    }


class LowRankLayer(nn.Module):
    """`expand(reduce(x))`: `reduce` holds B (rank x fan_in), `expand` A (out x rank) and the bias.

    The children are plain Linear or Conv2d modules, so LoRA, quantisers and hooks find them.
    """

    reduce: nn.Module
    expand: nn.Module

    @property
    def rank(self) -> int:
        return self.reduce.weight.shape[0]

    @property
    def bias(self) -> Tensor | None:
        return self.expand.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x))

    def merged_weight(self) -> Tensor:
        """The dense weight A B in the dense layer's shape and dtype, in float32 at least."""
        a, b = self.expand.weight.flatten(1), self.reduce.weight
        wide = torch.promote_types(a.dtype, torch.float32)
        weight = (a.to(wide) @ b.flatten(1).to(wide)).to(a.dtype)
        return weight.reshape(weight.shape[0], *b.shape[1:])

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random values whose product has the variance of a dense layer's default initialisation.

        The framework draws W from U(-1, 1)/sqrt(fan_in), of variance 1/(3 fan_in). Here B has
        variance 1/fan_in (the inner activations keep the input's scale) and A has 1/(3 rank), its
        own default; the rank terms of A B add up to 1/(3 fan_in). The bias is the dense layer's.
        """
        fan_in = self.reduce.weight[0].numel()
        for weight, bound in (
            (self.reduce.weight, math.sqrt(3 / fan_in)),
            (self.expand.weight, math.sqrt(1 / self.rank)),
            (self.expand.bias, math.sqrt(1 / fan_in)),
        ):
            if weight is not None:
                nn.init.uniform_(weight, -bound, bound)


class LowRankLinear(LowRankLayer):
    """Linear of weight A B: (..., in_features) -> (..., rank) -> (..., out_features)."""

    def __init__(
        self, in_features: int, out_features: int, rank: int, bias: bool = True, **factory
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.reduce = nn.Linear(in_features, rank, bias=False, **factory)
        self.expand = nn.Linear(rank, out_features, bias=bias, **factory)
        self.reset_parameters()

    @classmethod
    def like(cls, dense: nn.Linear, rank: int) -> "LowRankLinear":
        """A layer with the signature, device and dtype of `dense` and values of its own."""
        factory = {"device": dense.weight.device, "dtype": dense.weight.dtype}
        return cls(dense.in_features, dense.out_features, rank, dense.bias is not None, **factory)


class LowRankConv2d(LowRankLayer):
    """Conv2d of weight A B: a kh x kw conv in -> rank without bias, then a 1 x 1 conv rank -> out.

    Stride, padding and dilation are the first factor's, so sizes are those of the dense layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        rank: int,
        bias: bool = True,
        **conv,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        factory = {key: conv[key] for key in ("device", "dtype") if key in conv}
        self.reduce = nn.Conv2d(in_channels, rank, kernel_size, bias=False, **conv)
        self.expand = nn.Conv2d(rank, out_channels, 1, bias=bias, **factory)
        self.reset_parameters()

    @classmethod
    def like(cls, dense: nn.Conv2d, rank: int) -> "LowRankConv2d":
        """A layer with the signature, device and dtype of `dense` and values of its own."""
        kept = ("stride", "padding", "dilation", "padding_mode")
        return cls(
            dense.in_channels,
            dense.out_channels,
            dense.kernel_size,
            rank,
            dense.bias is not None,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
            **{key: getattr(dense, key) for key in kept},
        )


def low_rank_like(dense: nn.Module, rank: int, name: str = "layer") -> LowRankLayer:
    """The low-rank layer with the signature of `dense`.

    Raises DistilleryError if `dense` is neither Linear nor ungrouped Conv2d, or if `rank` is not
    between 1 and the weight's full rank.
    """
    if not is_factorable(dense):
        raise DistilleryError(
            f"{name}: a {type(dense).__name__} cannot be decomposed; name Linear or Conv2d layers"
        )
    full_rank = min(dense.weight.shape[0], math.prod(dense.weight.shape[1:]))
    if type(rank) is not int or not 1 <= rank <= full_rank:
        raise DistilleryError(f"{name}: rank {rank!r} is not a whole number from 1 to {full_rank}")
    return (LowRankLinear if isinstance(dense, nn.Linear) else LowRankConv2d).like(dense, rank)


def low_rank_layers(model: nn.Module) -> dict[str, LowRankLayer]:
    """The low-rank layers of `model` by name."""
    return {n: module for n, module in model.named_modules() if isinstance(module, LowRankLayer)}
