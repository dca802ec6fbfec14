"""What a model costs before it runs: parameters in five columns, bytes on disk, MACs.

In: modules, on the meta device too. Out: plain numbers. Measured memory and time are elsewhere.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from distillery.cost.shapes import run_operator
from distillery.models.architectures import build_meta
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

ADAPTER_PARTS = ("adapter", "controlnet")
COLUMNS = ("total", "unet", "adapter", "requires_grad", "in_optimiser")


def count_parameters(
    model: nn.Module | Mapping[str, nn.Module],
    optimizer_params: torch.optim.Optimizer | Iterable[Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, int]:
    """Parameters of a U-Net, or of named parts, in five columns, and their bytes on disk.

    `total`: everything given. `unet`: the part named `unet` without adapters. `adapter`: the parts
    `adapter` and `controlnet`, and PEFT adapters inside any part. Other parts (`text_encoder`,
    `vae`) count in `total` only; a bare module is the part `unet`. `requires_grad`: what autograd
    would reach. `in_optimiser`: elements in `optimizer_params`, an optimiser or its parameters;
    0 without one. `bytes_on_disk`: tensors of the state dict in `dtype` (default: each in its
    own), buffers included; file headers of some 100 bytes per tensor come on top.

    A tensor that appears several times is counted once.
    """
    parts = model if isinstance(model, Mapping) else {"unet": model}
    counts = dict.fromkeys(COLUMNS, 0)
    for part, parameter, in_adapter in _unique_parameters(parts):
        is_adapter = in_adapter or part in ADAPTER_PARTS
        counts["total"] += parameter.numel()
        counts["adapter"] += parameter.numel() * is_adapter
        counts["unet"] += parameter.numel() * (part == "unet" and not is_adapter)
        counts["requires_grad"] += parameter.numel() * parameter.requires_grad
    trained = {id(parameter): parameter for parameter in _flatten(optimizer_params)}
    counts["in_optimiser"] = sum(parameter.numel() for parameter in trained.values())
    return {**counts, "bytes_on_disk": _num_bytes(parts, dtype)}


def pipeline_counts(architecture: str, ranks: Mapping[str, int] | None = None) -> dict[str, int]:
    """Parameters of `unet`, `text_encoder`, `vae` and `total` of an architecture by name, on meta.

    With `ranks` the U-Net is the low-rank one.
    """
    parts = build_meta(architecture)
    if ranks is not None:
        parts["unet"] = LowRankUNet2DConditionModel.empty(parts["unet"].config, ranks)
    counts = {name: count_parameters(part)["total"] for name, part in parts.items()}
    return {**counts, "total": sum(counts.values())}


@torch.no_grad()
def count_macs(module: nn.Module, *inputs, **named_inputs) -> int:
    """Multiply-accumulates of one forward pass: convolutions, matrix products and attention.

    Half of the FLOPs by torch's formulas; they leave out norms, activations and sums. Module and
    inputs may be on the meta device, where nothing is computed.
    """
    # Fused attention on the CPU has no FLOP formula in torch; the plain form counts everywhere.
    with sdpa_kernel(SDPBackend.MATH), _Flops() as counter:
        module(*inputs, **named_inputs)
    return counter.total // 2


class _Flops(TorchDispatchMode):
    """What torch's `FlopCounterMode` adds up, without its table by module: half of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = run_operator(func, args, kwargs)
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _unique_parameters(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor, bool]]:
    """(part, parameter, whether it belongs to a PEFT adapter), each parameter once."""
    seen = set()
    for part, module in parts.items():
        inside = _adapter_prefixes(module)
        for name, parameter in module.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield part, parameter, name.startswith(inside)


def _adapter_prefixes(module: nn.Module) -> tuple[str, ...]:
    """Where PEFT layers keep adapter weights: each lists them in `adapter_layer_names`."""
    return tuple(
        f"{name}.{attribute}." if name else f"{attribute}."
        for name, layer in module.named_modules()
        for attribute in getattr(layer, "adapter_layer_names", ())
    )


def _flatten(params: torch.optim.Optimizer | Iterable[Tensor] | None) -> Iterable[Tensor]:
    if isinstance(params, torch.optim.Optimizer):
        return [parameter for group in params.param_groups for parameter in group["params"]]
    return params or ()


def _num_bytes(parts: Mapping[str, nn.Module], dtype: torch.dtype | None) -> int:
    tensors = {}
    for module in parts.values():
        tensors |= {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}
    return sum(math.prod(t.shape) * _item_size(t, dtype) for t in tensors.values())


def _item_size(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return dtype.itemsize if dtype and tensor.is_floating_point() else tensor.element_size()
