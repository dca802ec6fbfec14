"""Convolutions whose weight is the elementwise product of two low-rank matrices.

In: the shape of a convolution and a rank R. Out: a layer with weight (X1 Y1) * (X2 Y2), where X is
out x R and Y is R x (in * kh * kw); its rank can reach R^2 with 2 R (out + fan_in) values. The
layer *replaces* a convolution; it is no adapter beside one. The form: Hyeon-Woo et al. 2022
(FedPara, arXiv 2108.06098), known as LoHa. Layers that get it: `student_controlnet.presets`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.hadamard.fit import balanced, fit, relative_error
from distillery.models.hadamard.product import Product, state_of
from distillery.models.layers import LayerShape

FACTORS = ("x1", "y1", "x2", "y2")


def rank_limit(shape: LayerShape, rank: int) -> int:
    """The rank a layer gets when `rank` is asked for: 0 where no product would be smaller.

    `rank` itself where 2 rank (out + fan_in) is less than out * fan_in. Otherwise the largest rank
    whose factors have at most a quarter of the dense weight's parameters.
    """
    per_rank = 2 * (shape.out + shape.fan_in)
    if rank * per_rank < shape.num_dense:
        return rank
    return shape.num_dense // (4 * per_rank)


class HadamardConv2d(nn.Module):
    """Conv2d of weight (X1 Y1) * (X2 Y2); the arguments are those of `nn.Conv2d` and `rank`.

    Raises DistilleryError for a rank below 1 or grouped convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        rank: int,
        bias: bool = True,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        **factory: Any,
    ) -> None:
        super().__init__()
        if type(rank) is not int or rank < 1:
            raise DistilleryError(f"rank {rank!r} is not a whole number from 1; leave it dense")
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.rank, fan_in = rank, in_channels * math.prod(size)
        self.x1 = nn.Parameter(torch.empty(out_channels, rank, **factory))
        self.y1 = nn.Parameter(torch.empty(rank, fan_in, **factory))
        self.x2 = nn.Parameter(torch.empty(out_channels, rank, **factory))
        self.y2 = nn.Parameter(torch.empty(rank, fan_in, **factory))
        self.bias = nn.Parameter(torch.empty(out_channels, **factory)) if bias else None
        self._kept: tuple[tuple, Tensor] | None = None
        self.reset_parameters()

    @classmethod
    def like(cls, dense: nn.Conv2d, rank: int) -> "HadamardConv2d":
        """A layer with the signature, device and dtype of `dense` and values of its own."""
        if not isinstance(dense, nn.Conv2d) or dense.groups != 1 or dense.padding_mode != "zeros":
            raise DistilleryError(
                f"{dense}: only an ungrouped, zero-padded Conv2d becomes a Hadamard product"
            )
        return cls(
            dense.in_channels,
            dense.out_channels,
            dense.kernel_size,
            rank,
            dense.bias is not None,
            stride=dense.stride,
            padding=dense.padding,
            dilation=dense.dilation,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )

    @classmethod
    def from_dense(
        cls, dense: nn.Conv2d, rank: int, num_sweeps: int = 10, seed: int = 0
    ) -> "HadamardConv2d":
        """The layer of that rank nearest to `dense` that `fit_to` finds; the bias is copied."""
        layer = cls.like(dense, rank)
        layer.fit_to(dense.weight, num_sweeps, seed)
        if dense.bias is not None:
            layer.bias.data.copy_(dense.bias.detach())
        return layer

    @property
    def factors(self) -> tuple[nn.Parameter, ...]:
        """X1, Y1, X2, Y2."""
        return tuple(getattr(self, name) for name in FACTORS)

    @property
    def weight(self) -> Tensor:
        """The materialised weight, out x in x kh x kw, with its gradient to the factors."""
        product = Product.apply(*self.factors)
        return product.reshape(self.out_channels, self.in_channels, *self.kernel_size)

    @torch.no_grad()
    def reset_parameters(self, negative_slope: float = math.sqrt(5)) -> None:
        """Random factors whose product has exactly the variance of a Kaiming initialisation.

        That is 2 / ((1 + negative_slope^2) fan_in) (He et al. 2015); the default slope is the one
        of `nn.Conv2d`. One draw of a product of few terms strays by several percent, so the factors
        are scaled to the weight they give. The bias is drawn as `nn.Conv2d` does.
        """
        if self.x1.is_meta:
            return
        fan_in = self.y1.shape[1]
        for factor in self.factors:
            nn.init.normal_(factor)
        wanted = math.sqrt(2 / ((1 + negative_slope**2) * fan_in))
        x1, y1, x2, y2 = (factor.float() for factor in self.factors)
        scale = (wanted / float(((x1 @ y1) * (x2 @ y2)).std())) ** 0.25
        for factor in self.factors:
            factor.mul_(scale)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    @torch.no_grad()
    def fit_to(self, weight: Tensor, num_sweeps: int = 10, seed: int = 0) -> list[float]:
        """Bring the product near `weight` (out x in x kh x kw) in place; errors never increase.

        Returns ||W - product|| / ||W|| before the first sweep and after each. A sweep solves the
        least-squares problem of each factor in turn; it takes some 4 out fan_in R^2
        multiplications. Starts from the better of the present values and a spectral guess; `seed`
        is for the guess. Raises DistilleryError for another shape.
        """
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        if tuple(weight.shape) != shape:
            raise DistilleryError(
                f"the weight is {tuple(weight.shape)}, the layer {shape}; fit to its own shape"
            )
        target = weight.detach().flatten(1).to(self.x1.device, torch.float64)
        if not float(target.norm()):
            raise DistilleryError("the weight is zero; a product cannot be fitted to it")
        fitted, errors = fit(target, [f.double() for f in self.factors], num_sweeps, seed)
        for factor, value in zip(self.factors, balanced(fitted), strict=True):
            factor.copy_(value)
        return errors

    def error(self, weight: Tensor) -> float:
        """||W - product|| / ||W||, the relative distance to a dense weight."""
        return relative_error(weight.detach().flatten(1).double(), self._wide_factors())

    @torch.no_grad()
    def to_dense(self) -> nn.Conv2d:
        """The same function as a plain `nn.Conv2d`, multiplied out in float64."""
        dense = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            bias=self.bias is not None,
            device=self.x1.device,
            dtype=self.x1.dtype,
        )
        x1, y1, x2, y2 = self._wide_factors()
        dense.weight.copy_(((x1 @ y1) * (x2 @ y2)).reshape(dense.weight.shape))
        if self.bias is not None:
            dense.bias.copy_(self.bias)
        return dense.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(
            x, self._current_weight(), self.bias, self.stride, self.padding, self.dilation
        )

    def _current_weight(self) -> Tensor:
        """`weight`; in eval mode without gradients multiplied out once for the same factors.

        The layer then takes the memory of a dense one, and as few operations.
        """
        needs_gradient = torch.is_grad_enabled() and any(f.requires_grad for f in self.factors)
        if self.training or needs_gradient or self.x1.is_meta:
            self._kept = None
            return self.weight
        key = tuple(state_of(factor) for factor in self.factors)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.weight.detach()
        return self._kept[1]

    def extra_repr(self) -> str:
        size = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{size}, rank={self.rank}, stride={self.stride}, padding={self.padding}"

    def _wide_factors(self) -> Sequence[Tensor]:
        return [factor.detach().double() for factor in self.factors]


def plan_hadamard_ranks(
    model: nn.Module, rank: int | None, endings: Sequence[str]
) -> dict[str, int]:
    """{name: rank} for the convolutions of `model` whose name is, or ends in, one of `endings`.

    Ranks are those of `rank_limit`; a convolution that would not get smaller is left out. Empty if
    `rank` is None. Raises DistilleryError if no convolution has such a name.
    """
    if rank is None:
        return {}
    ranks = {
        name: rank_limit(LayerShape(conv.out_channels, conv.weight[0].numel()), rank)
        for name, conv in model.named_modules()
        if isinstance(conv, nn.Conv2d) and f".{name}".endswith(tuple(f".{e}" for e in endings))
    }
    if not ranks:
        raise DistilleryError(f"hadamard_convs: no convolution ends in {', '.join(endings)}")
    return {name: limit for name, limit in ranks.items() if limit}


def replace_convolutions(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put a Hadamard convolution of random factors in place of every one that `ranks` names.

    Raises DistilleryError for a name that `model` has not.
    """
    layers = dict(model.named_modules())
    for name, rank in ranks.items():
        if name not in layers:
            raise DistilleryError(f"hadamard_ranks: the student has no layer {name!r}")
        model.set_submodule(name, HadamardConv2d.like(layers[name], rank))
