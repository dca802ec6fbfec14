"""A layer with its Kronecker update in few kernels, for devices on which kernels cost.

In: a layer, activations, the factors A, u, v of `ops`. Out: the layer's output with the update, in
one of the forms that are equal up to rounding:
apart   the layer, then `ops`: least arithmetic, about twelve kernels on activations
branch  the layer, and a branch of inner width n n r: one grouped convolution, one of 1 x 1
joined  a low-rank layer and the branch as one pair of factors, of rank + n n r
built   one layer of weight W + dW, formed at every call
`choose` takes the least of their predicted times. On the CPU it is always `apart`, where kernels
cost nothing (`benchmarks/kronecker.py`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillery.models.kronecker.ops import update_weight
from distillery.models.layers import LayerShape, LowRankLayer

Form = Literal["apart", "branch", "joined", "built"]
# An H100 in half precision, of what it is sold with: 60% of 800 TFLOP/s, 75% of 3 TB/s; 3 us for a
# kernel that has nothing to do. Constants of the roofline that docs/log.md compares with measured
# layers; the choice itself was not measured on a GPU yet.
MACS_PER_S, BYTES_PER_S, KERNEL_S = 240e12, 2.25e12, 3e-6
NUM_BYTES = 2


@dataclass(frozen=True)
class Work:
    """A layer's sizes: `positions` of a batch, weight `out` x `fan_in`, blocks `n`, rank `r`.

    `rank` is that of the layer itself, 0 for a dense one. `has_blocks`: n divides its channels, and
    it pads with zeros.
    """

    positions: int
    out: int
    fan_in: int
    n: int
    r: int
    rank: int = 0
    has_blocks: bool = True

    @property
    def width(self) -> int:
        """Of the branch."""
        return self.n * self.n * self.r


def work_of(layer: nn.Module, shape: LayerShape, x: Tensor, v: Tensor) -> Work:
    """What there is to do for a layer, its input and a factor v."""
    (n, r, _), rank = v.shape, layer.rank if isinstance(layer, LowRankLayer) else 0
    if isinstance(geometry := geometry_of(layer), nn.Linear):
        return Work(x.numel() // x.shape[-1], shape.out, shape.fan_in, n, r, rank)
    positions = len(x) * x.shape[2] * x.shape[3] // math.prod(geometry.stride)
    has_blocks = geometry.in_channels % n == 0 and geometry.padding_mode == "zeros"
    return Work(positions, shape.out, shape.fan_in, n, r, rank, has_blocks)


def geometry_of(layer: nn.Module) -> nn.Module:
    """The Linear or Conv2d that meets the input: the layer or its first factor."""
    return layer.reduce if isinstance(layer, LowRankLayer) else layer


def kernels_cost(device: torch.device) -> bool:
    """Whether a device may wait longer for a kernel than the kernel takes."""
    return device.type == "cuda"


def choose(work: Work, device: torch.device) -> Form:
    """The form of least predicted time for a training step, forward and backward."""
    if not kernels_cost(device):
        return "apart"
    forms: list[Form] = ["apart"]
    if work.has_blocks:
        forms += ["branch", "built", "joined"] if work.rank else ["branch", "built"]
    return min(forms, key=lambda form: predicted_s(work, form))


def predicted_s(work: Work, form: Form) -> float:
    """What the update adds to a step of the frozen layer, in seconds.

    Of every product with a trained factor there are three, of one with a frozen weight two.
    """
    p, out, fan_in, n, r = work.positions, work.out, work.fan_in, work.n, work.r
    down, up = p * fan_in * n * r, p * work.width * out
    frozen = work.rank * (out + fan_in) if work.rank else out * fan_in
    macs, numbers, kernels = {
        "apart": (3 * (down + p * out * n * r + p * n**3 * r),
                  p * (2 * (fan_in + out) + 10 * work.width), 36),
        "branch": (3 * (down + up), p * (2 * (fan_in + out) + 4 * work.width), 14),
        # The blocks of the first factor are zeros off the diagonal; the frozen factors get weight
        # gradients that nobody wants.
        "joined": (3 * p * work.width * (fan_in + out) + p * frozen,
                   3 * p * work.width + 4 * frozen, 10),
        "built": (3 * out * fan_in * (n + r) + p * out * fan_in
                  + (2 * p * (out * fan_in - frozen) if work.rank else 0), 12 * out * fan_in, 12),
    }[form]  # fmt: skip
    return max(macs / MACS_PER_S, NUM_BYTES * numbers / BYTES_PER_S) + kernels * KERNEL_S


def up_weight(a: Tensor, u: Tensor) -> Tensor:
    """The branch's second weight [out, n n r]: A_i[a, b] u_i at rows (a, s), columns (b, i, r)."""
    return torch.einsum("iab,isr->asbir", a, u).reshape(a.shape[1] * u.shape[1], -1)


def branch(layer: nn.Module, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The layer, and a branch beside it."""
    (n, r, _), up, result = v.shape, up_weight(a, u), layer(x)
    x = x.to(u.dtype)
    if isinstance(conv := geometry_of(layer), nn.Linear):
        blocks = x.unflatten(-1, (n, -1))
        share = functional.linear(functional.linear(blocks, v.flatten(0, 1)).flatten(-2), up)
    else:
        kernel = v.reshape(n * r, -1, *conv.kernel_size).repeat(n, 1, 1, 1)
        inner = functional.conv2d(x, kernel, None, conv.stride, conv.padding, conv.dilation, n)
        share = functional.conv2d(inner, up[:, :, None, None])
    return result + share.to(result.dtype)


def joined(layer: LowRankLayer, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A low-rank layer with the update, as one pair of factors."""
    reduce, bias = layer.reduce, layer.bias
    up = torch.cat([layer.expand.weight.flatten(1).to(u.dtype), up_weight(a, u)], dim=1)
    down = torch.cat([reduce.weight.to(v.dtype), _block_diagonal(v, reduce)])
    bias = None if bias is None else bias.to(u.dtype)
    wide = x.to(u.dtype)
    if isinstance(reduce, nn.Linear):
        return _as_given(functional.linear(functional.linear(wide, down), up, bias), x)
    inner = functional.conv2d(wide, down, None, reduce.stride, reduce.padding, reduce.dilation)
    return _as_given(functional.conv2d(inner, up[:, :, None, None], bias), x)


def _as_given(result: Tensor, x: Tensor) -> Tensor:
    """In the dtype of the input; under autocast in the one that products have there."""
    return result if torch.is_autocast_enabled(x.device.type) else result.to(x.dtype)


def _block_diagonal(v: Tensor, layer: nn.Module) -> Tensor:
    """All v_i on every block of inputs [n n r, in, ...], zeros elsewhere."""
    n, r, _ = v.shape
    size = () if isinstance(layer, nn.Linear) else layer.kernel_size
    blocks = v.reshape(n * r, -1, math.prod(size))
    eye = torch.eye(n, dtype=v.dtype, device=v.device)
    return torch.einsum("bc,kjs->bkcjs", eye, blocks).reshape(n * n * r, -1, *size)


def built(layer: nn.Module, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """One layer of the weight that includes the update."""
    is_low_rank, geometry = isinstance(layer, LowRankLayer), geometry_of(layer)
    weight = (layer.merged_weight() if is_low_rank else layer.weight).to(u.dtype)
    weight = weight + update_weight(a, u, v).reshape(weight.shape)
    bias = None if layer.bias is None else layer.bias.to(u.dtype)
    wide = x.to(u.dtype)
    if isinstance(geometry, nn.Linear):
        return _as_given(functional.linear(wide, weight, bias), x)
    place = (geometry.stride, geometry.padding, geometry.dilation)
    return _as_given(functional.conv2d(wide, weight, bias, *place), x)


FORMS = {"branch": branch, "joined": joined, "built": built}
