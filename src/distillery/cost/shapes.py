"""What a U-Net's most frequent operators give on the meta device, without torch's references.

In: an operator of ATen with its arguments. Out: tensors of the right shape and dtype. torch
computes these shapes in Python, operator by operator, which is over half the time of counting or
predicting on the meta device. Everything else, and every other device, is torch's own.
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten


def run_operator(operator: Any, args: tuple, kwargs: dict[str, Any] | None) -> Any:
    """The operator's result, or on the meta device, where it is known here, its shape."""
    shape = _SHAPES.get(operator) if _is_float32_on_meta(args) else None
    return (shape or operator)(*args, **(kwargs or {}))


def _is_float32_on_meta(args: tuple) -> bool:
    """Of narrower types torch keeps some moments in float32."""
    first = args[0] if args else None
    return isinstance(first, Tensor) and first.is_meta and first.dtype == torch.float32


def _like(x: Tensor, *_: object, **__: object) -> Tensor:
    return torch.empty_like(x)


def _group_norm(x: Tensor, _weight: Any, _bias: Any, num: int, *rest: Any) -> tuple[Tensor, ...]:
    _channels, _size, groups, _eps = rest
    return torch.empty_like(x), x.new_empty(num, groups), x.new_empty(num, groups)


def _layer_norm(x: Tensor, shape: Sequence[int], *_: object) -> tuple[Tensor, ...]:
    moments = [*x.shape[: x.dim() - len(shape)], *[1] * len(shape)]
    return tuple(x.new_empty(size) for size in (x.shape, moments, moments))  # always contiguous


def _group_norm_backward(
    _gradient: Tensor, x: Tensor, _mean: Tensor, _rstd: Tensor, _weight: Any, *rest: Any
) -> tuple[Tensor | None, ...]:
    _num, channels, *_, mask = rest
    sizes = (x.shape, (channels,), (channels,))
    return tuple(x.new_empty(size) if m else None for size, m in zip(sizes, mask, strict=True))


def _layer_norm_backward(
    _gradient: Tensor, x: Tensor, shape: Sequence[int], *rest: Any
) -> tuple[Tensor | None, ...]:
    sizes = (x.shape, shape, shape)
    return tuple(x.new_empty(size) if m else None for size, m in zip(sizes, rest[-1], strict=True))


def _addmm(_bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], y.shape[1])


def _elementwise(operator: Any) -> Callable[..., Tensor]:
    """Of two tensors with one layout, or of a tensor and a number; what is broadcast is torch's."""

    def shape(x: Tensor, y: Tensor | Real, **options: object) -> Tensor:
        is_alike = isinstance(y, Real) or _layout(x) == _layout(y)
        return torch.empty_like(x) if is_alike else operator(x, y, **options)

    return shape


def _layout(x: Tensor) -> tuple:
    return x.shape, x.stride(), x.dtype, x.is_meta


_ELEMENTWISE = (_ATEN.add.Tensor, _ATEN.div.Tensor, _ATEN.mul.Scalar, _ATEN.mul.Tensor)
_SHAPES = {
    **{operator: _elementwise(operator) for operator in _ELEMENTWISE},
    _ATEN.addmm.default: _addmm,
    _ATEN._safe_softmax.default: _like,
    _ATEN.gelu.default: _like,
    _ATEN.gelu_backward.default: _like,
    _ATEN.silu.default: _like,
    _ATEN.native_group_norm.default: _group_norm,
    _ATEN.native_group_norm_backward.default: _group_norm_backward,
    _ATEN.native_layer_norm.default: _layer_norm,
    _ATEN.native_layer_norm_backward.default: _layer_norm_backward,
}
