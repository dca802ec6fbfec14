"""Mixed precision on the meta device, which has no autocast of its own.

In: a dtype. Out: a context in which operators take operands as autocast on CUDA gives them. Not
here: the memory that follows from it (`memory_model`).
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from distillery.models.checkpointing import recomputing_in


class Mixed(TorchFunctionMode):
    """Mixed precision as autocast has it on CUDA, which the meta device has not.

    Products take operands of `dtype`, norms and losses float32 ones.
    """

    _NARROW = frozenset(
        {"linear", "conv2d", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm",
         "einsum", "scaled_dot_product_attention"}
    )  # fmt: skip
    _WIDE = frozenset(
        {"layer_norm", "group_norm", "softmax", "mse_loss", "norm", "sum", "prod", "exp", "log",
         "pow"}
    )  # fmt: skip

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        wanted = self._dtype if name in self._NARROW else torch.float32
        if name in self._NARROW or name in self._WIDE:
            args, kwargs = (tree_map(lambda leaf: _cast(leaf, wanted), t) for t in (args, kwargs))
        return func(*args, **(kwargs or {}))


def _cast(leaf: object, dtype: torch.dtype) -> object:
    is_cast = isinstance(leaf, Tensor) and leaf.dtype in (
        torch.float32, torch.float16, torch.bfloat16
    )  # fmt: skip
    return leaf.to(dtype) if is_cast else leaf


@contextlib.contextmanager
def mixed(dtype: torch.dtype) -> Iterator[None]:
    """`Mixed`, or nothing for float32; also for what is recomputed in the backward pass."""
    if dtype == torch.float32:
        yield
        return
    with Mixed(dtype), recomputing_in(partial(Mixed, dtype)):
        yield
