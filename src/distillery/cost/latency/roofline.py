"""Predicted latency: every operation as long as its arithmetic or its memory traffic takes.

In: units on the meta device and a machine's three constants. Out: seconds. Nothing is run: a
prediction is a bound with a fixed utilisation (Williams et al. 2009), and is named one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from distillery.cost.latency.units import Tensors, Unit, form_of
from distillery.cost.timing import seconds_of


@dataclass(frozen=True)
class Machine:
    """Sustained arithmetic and memory traffic, and what an operation takes on top."""

    flops_per_s: float
    bytes_per_s: float
    kernel_s: float

    def seconds(self, flops: float, num_bytes: float) -> float:
        """Of one operation."""
        return max(flops / self.flops_per_s, num_bytes / self.bytes_per_s) + self.kernel_s


# 60% of the dense half-precision peak, 75% of the memory's, 3 us a kernel in a CUDA graph.
# Peaks from the vendor's data sheets (SXM forms).
MACHINES = {
    "h100": Machine(0.60 * 800e12, 0.75 * 3.0e12, 3e-6),
    "h200": Machine(0.60 * 800e12, 0.75 * 4.8e12, 3e-6),
    "a100": Machine(0.60 * 312e12, 0.75 * 2.0e12, 3e-6),
}
_FREE = {
    "view", "_unsafe_view", "t", "transpose", "expand", "unsqueeze", "squeeze", "permute", "split",
    "slice", "select", "detach", "alias", "empty", "empty_like", "as_strided", "lift_fresh",
}  # fmt: skip


def roofline_s(unit: Unit, rank: int | None, tensors: Tensors, machine: Machine) -> float:
    """Seconds of one call of a unit, a layer at `rank`, on a batch as `tensors` makes it."""
    module = nn.Module.to(form_of(unit, rank), tensors.dtype)
    counter = _Seconds(machine)
    with torch.no_grad(), _FusedAttention(counter), counter:
        unit.call(module, tensors)
    return counter.seconds


class _Seconds(TorchDispatchMode):
    """Adds up the time of every operation that moves data."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine, self.seconds = machine, 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func._overloadpacket.__name__ not in _FREE:
            formula = flop_registry.get(func._overloadpacket)
            flops = formula(*args, **kwargs, out_val=output) if formula else 0
            self.seconds += self.machine.seconds(flops, _num_bytes((args, kwargs, output)))
        return output


class _FusedAttention(TorchFunctionMode):
    """Counts attention as one kernel that never writes its scores, as on a GPU."""

    def __init__(self, counter: _Seconds) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args[:3] if len(args) >= 3 else (kwargs[n] for n in _QKV)
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        rows = math.prod(query.shape[:-1])
        flops = 2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        num_bytes = _num_bytes((query, key, value, output))
        self.counter.seconds += self.counter.machine.seconds(flops, num_bytes)
        return output


_QKV = ("query", "key", "value")


def _num_bytes(values: Any) -> int:
    return sum(v.numel() * v.element_size() for v in tree_leaves(values) if isinstance(v, Tensor))


@torch.no_grad()
def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """The constants of this machine: a large product, a large copy, a tiny sum; two seconds."""
    matrix = torch.randn(1024, 1024, device=device).to(dtype)
    large = torch.zeros(16 * 1024**2, device=device)
    small = torch.zeros(8, device=device, dtype=dtype)
    return Machine(
        2 * 1024**3 / _fastest(lambda: matrix @ matrix, device, 5),
        2 * large.numel() * 4 / _fastest(large.clone, device, 5),
        _fastest(lambda: [small + small for _ in range(200)], device, 5) / 200,
    )


def _fastest(job: Callable[[], object], device: torch.device, repeats: int) -> float:
    return min([seconds_of(job, device) for _ in range(repeats + 1)][1:])
