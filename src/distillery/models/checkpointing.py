"""Gradient checkpointing: activations are computed again in the backward pass, not kept.

In: a diffusers model. Out: the same model, which trains in less memory and about a third more time.
Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from typing import Any

from diffusers import ModelMixin
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(model: ModelMixin) -> None:
    """Switch it on, in place.

    Random states are kept for dropout only: keeping them asks the device for them, which a recorded
    CUDA graph can't do.
    """
    is_random = any(m.p > 0 for m in model.modules() if isinstance(m, nn.Dropout))

    def recompute(module: nn.Module, *args: Any) -> Any:
        function = module.__call__
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=is_random)

    model.enable_gradient_checkpointing(recompute)
