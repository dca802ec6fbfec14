"""Which layers of a model a Kronecker adapter may take.

In: a model and a `KroneckerConfig`. Out: names and verdicts; nothing is changed.
"""

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.kronecker.layers import KroneckerLayer, adaptable_shape, divides
from distillery.models.layers import LowRankLayer


def is_low_rank(module: nn.Module) -> bool:
    """Whether a module is an adapted low-rank layer."""
    return isinstance(module, KroneckerLayer) and isinstance(module.get_base_layer(), LowRankLayer)


def inner_names(model: nn.Module) -> frozenset[str]:
    """Names of modules inside low-rank and already adapted layers, which are no targets."""
    return frozenset(
        f"{name}.{inner}"
        for name, module in model.named_modules()
        if isinstance(module, LowRankLayer | BaseTunerLayer)
        for inner, _ in module.named_modules()
        if inner
    )


def fits(name: str, layer: nn.Module, config: Any) -> bool:
    """Whether n divides the layer. Raises DistilleryError for an unsupported kind, or by config."""
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    shape = adaptable_shape(base)
    if shape is None:
        kind = type(base).__name__ + (" with groups" if isinstance(base, nn.Conv2d) else "")
        raise DistilleryError(
            f"{name}: a {kind} cannot take a Kronecker update; target Linear and ungrouped Conv2d "
            "layers, or name this one in exclude_modules"
        )
    if config.indivisible == "error" and not divides(config.n, shape):
        raise DistilleryError(
            f"{name}: n = {config.n} does not divide its weight of {shape.out} x {shape.fan_in}; "
            "choose another n, exclude_modules, or indivisible: skip or lora"
        )
    return divides(config.n, shape)


def listed(targets: list[str] | set[str] | str) -> str:
    """`target_modules` for a message."""
    return targets if isinstance(targets, str) else ", ".join(sorted(targets))
