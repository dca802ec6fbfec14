"""Gradient checkpointing: activations are computed again in the backward pass, not kept.

In: a diffusers model. Out: the same model, which trains in less memory and about a third more time.
Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from diffusers import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint

_contexts: list[Callable[[], contextlib.AbstractContextManager]] = []


def recompute_activations(model: ModelMixin) -> None:
    """Switch it on, in place.

    Random states are kept for dropout only: keeping them asks the device for them, which a recorded
    CUDA graph can't do.
    """
    is_random = any(m.p > 0 for m in model.modules() if isinstance(m, nn.Dropout))

    def recompute(module: nn.Module, *args: Any) -> Any:
        function, options = module.__call__, {}
        if _contexts:
            context = _contexts[-1]
            options["context_fn"] = lambda: (contextlib.nullcontext(), context())
        return checkpoint(
            function, *args, use_reentrant=False, preserve_rng_state=is_random, **options
        )

    model.enable_gradient_checkpointing(recompute)


@contextlib.contextmanager
def recomputing_in(context: Callable[[], contextlib.AbstractContextManager]) -> Iterator[None]:
    """Forward passes meanwhile are computed again in a context of this kind.

    PyTorch remembers autocast by itself, other modes it does not.
    """
    _contexts.append(context)
    try:
        yield
    finally:
        _contexts.pop()
