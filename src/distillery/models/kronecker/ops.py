"""A Kronecker update of a layer's weight, applied to activations without forming the update.

In: activations, a layer's output and the factors A [n, n, n], u [n, out/n, r] and
v [n, r, fan_in/n] of `dW = sum_i A_i (x) (u_i v_i)`, in the order of `torch.kron(A_i, u_i @ v_i)`.
Out: the output with the update's share added. A scale is the caller's, best put into A, the
smallest factor.
Source: ELR-Diffusion, Stage II.

With x split into n blocks x_b, block a of the update's output is
`sum_i u_i (sum_b A_i[a, b] (v_i x_b))`. All v_i meet all blocks in one product, then A mixes n
values at a time, then all u_i act in one product that accumulates into the layer's output. Per
position that is n r (fan_in + out + n^2) multiply-adds, and n^2 r values are kept for backward.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def add_linear_update(result: Tensor, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """`result + x @ dW.T` for x (..., in) and result (..., out), all of one dtype."""
    n, width, r = u.shape
    blocks = x.reshape(-1, v.shape[2])
    # Rows (i, r), columns (position, b): the mixing below then reads and writes without a copy.
    reduced = v.flatten(0, 1) @ blocks.t()
    mixed = torch.bmm(reduced.view(n, -1, n), a.mT).view(n * r, -1)
    out = torch.addmm(result.reshape(-1, width), mixed.t(), _stacked(u).t())
    return out.view(result.shape)


def add_conv2d_update(
    result: Tensor, x: Tensor, a: Tensor, u: Tensor, v: Tensor, conv: nn.Conv2d
) -> Tensor:
    """`result + conv2d(x, dW)` for x [B, in, H, W] and result [B, out, H', W'], all of one dtype.

    `conv` gives the geometry: kernel, stride, padding, dilation, padding mode. Where n divides
    `in`, the n blocks of channels go through one convolution as separate images; otherwise the
    kernel's patches are unfolded, which costs kh * kw times the input's memory.
    """
    n, width, r = u.shape
    num_images = x.shape[0]
    reduced = (_convolved if conv.in_channels % n == 0 else _unfolded)(x, v, conv)
    by_branch = reduced.reshape(num_images, n, n, -1).transpose(1, 2)
    mixed = torch.matmul(a, by_branch).transpose(1, 2).reshape(num_images * n, n * r, -1)
    stacked = _stacked(u).expand(num_images * n, -1, -1)
    out = torch.baddbmm(result.reshape(num_images * n, width, -1), stacked, mixed)
    return out.view(result.shape)


def update_weight(a: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """dW [out, fan_in] in full, for merging: the one place where it is formed."""
    n, width, _ = u.shape
    blocks = torch.einsum("iab,isr,irt->asbt", a, u, v)
    return blocks.reshape(n * width, n * v.shape[2])


def _stacked(u: Tensor) -> Tensor:
    """[n, out/n, r] as one matrix [out/n, n * r]."""
    return u.transpose(0, 1).flatten(1)


def _convolved(x: Tensor, v: Tensor, conv: nn.Conv2d) -> Tensor:
    """[B, in, H, W] -> [B * n, n * r, H', W']: every v_i on every block of channels."""
    n, r, _ = v.shape
    x, padding = _padded(x, conv) if conv.padding_mode != "zeros" else (x, conv.padding)
    num_channels = conv.in_channels // n
    images = x.reshape(-1, num_channels, *x.shape[2:])
    kernel = v.reshape(n * r, num_channels, *conv.kernel_size)
    return functional.conv2d(images, kernel, None, conv.stride, padding, conv.dilation)


def _unfolded(x: Tensor, v: Tensor, conv: nn.Conv2d) -> Tensor:
    """As `_convolved`, flat over positions, where blocks of fan_in cut through channels."""
    x, _ = _padded(x, conv)
    patches = functional.unfold(x, conv.kernel_size, conv.dilation, 0, conv.stride)
    blocks = patches.reshape(-1, v.shape[2], patches.shape[-1])
    return torch.matmul(v.flatten(0, 1), blocks)


def _padded(x: Tensor, conv: nn.Conv2d) -> tuple[Tensor, int]:
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return functional.pad(x, conv._reversed_padding_repeated_twice, mode), 0
