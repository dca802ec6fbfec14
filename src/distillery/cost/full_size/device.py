"""Modules of random weights on a real device, and what the device has room for.

In: modules on the meta device. Out: the same modules with values, bytes. Weights are random, of the
scale that keeps activations near 1. Used by what runs training iterations and evaluations at full
size.
"""

import gc
from collections.abc import Iterable
from typing import Any

import psutil
import torch
from torch import nn

from distillery.cost.timing import NO_MEMORY

MEASURED, PREDICTED = "measured", "predicted only"
NO_FIT, OUT_OF_MEMORY = "does not fit", "out of memory"


@torch.no_grad()
def materialise(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Give every meta parameter random values on `device`, in place; shared ones stay shared."""
    made: dict[int, nn.Parameter] = {}
    for module in (inner for outer in modules for inner in outer.modules()):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta and id(parameter) not in made:
                made[id(parameter)] = _random_like(name, parameter, device)
            module._parameters[name] = made.get(id(parameter), parameter)
            made.setdefault(id(module._parameters[name]), module._parameters[name])
        for name, buffer in module.named_buffers(recurse=False):
            real = torch.zeros_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
            module._buffers[name] = real


def _random_like(name: str, meta: nn.Parameter, device: torch.device) -> nn.Parameter:
    value = torch.empty(meta.shape, dtype=meta.dtype, device=device)
    if meta.dim() > 1:
        value.uniform_(-1, 1).mul_(meta[0].numel() ** -0.5)
    else:
        value.fill_(float(name == "weight"))
    return nn.Parameter(value, requires_grad=meta.requires_grad)


def free_bytes(device: torch.device) -> int:
    """Memory that a new iteration may take on the device, once freed blocks are given back."""
    release(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, could not give more memory."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


def does_not_fit(needed: int, free: int) -> dict[str, str]:
    """Status and reason of what is not run."""
    return {
        "status": NO_FIT,
        "reason": f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
    }


def release(device: torch.device) -> None:
    """Give freed memory back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peaks(device: torch.device) -> None:
    """From here on a new peak counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, Any]:
    """Most memory allocated and reserved since `reset_peaks`; None where none can be measured."""
    if device.type != "cuda":
        return {"peak_allocated_bytes": None, "peak_reserved_bytes": None, "memory": NO_MEMORY}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
    }
