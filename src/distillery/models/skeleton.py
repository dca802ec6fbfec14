"""Models on the meta device without drawing the values that they do not have.

In: the making of a model, inside one of these contexts. Out: the same model, in half of the time:
torch takes a random value of a tensor on meta apart into Python, layer by layer. Tensors elsewhere
are filled as ever, from the same draws. Not here: which weights a model gets later (`strict`).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.overrides import TorchFunctionMode

_FILLERS = "torch.nn.init"


class Unfilled(TorchFunctionMode):
    """Leaves out what `torch.nn.init` would do to a tensor on meta."""

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == _FILLERS:
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Everything is on meta, buffers too."""
    with torch.device("meta"), Unfilled():
        yield


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Parameters are on meta, buffers real."""
    with init_empty_weights(), Unfilled():
        yield
