"""The product of Hadamard factors with its gradients, and what tells the factors' values apart.

In: factors X1, Y1, X2, Y2. Out: (X1 Y1) * (X2 Y2). The layer is `conv`.
"""

from typing import Any

import torch
from torch import Tensor


class Product(torch.autograd.Function):
    """(X1 Y1) * (X2 Y2), keeping the factors alone for the backward pass.

    Autograd would keep both dense products until then, in every layer. Multiplying them out again
    takes 2 out R fan_in multiplications.
    """

    @staticmethod
    def forward(ctx: Any, x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        ctx.save_for_backward(x1, y1, x2, y2)
        return (x1 @ y1) * (x2 @ y2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x1, y1, x2, y2 = ctx.saved_tensors
        first = gradient.to(x1.dtype) * (x2 @ y2)
        second = gradient.to(x1.dtype) * (x1 @ y1)
        return first @ y1.T, x1.T @ first, second @ y2.T, x2.T @ second


def state_of(factor: Tensor) -> tuple:
    """What tells a tensor's values apart without reading them."""
    version = None if factor.is_inference() else factor._version  # inference tensors have none
    return factor.data_ptr(), factor.dtype, version
