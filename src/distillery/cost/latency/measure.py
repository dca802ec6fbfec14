"""Timing the parts of a U-Net in turn, on the device and in the runtime of the student.

In: units, a device, a runtime. Out: seconds of every unit in each form. Every round times all of
them, so that a slow moment of the machine hits all; medians are taken over rounds. On a CPU with
one thread the clock is the processor's: what else the machine does meanwhile does not count.

Weights are views of one pool of random numbers, as large as the model but at most 256 MB in single
precision: no form's weights are in a cache because it was just timed, as they are not in the model,
and all forms of all layers fit in memory.
"""

import copy
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.core.runtime import CudaGraphs
from distillery.cost.latency.table import Spread
from distillery.cost.latency.units import Tensors, Unit, form_of
from distillery.cost.timing import seconds_of

RUNTIMES = ("eager", "graph")
PROCESSOR, WALL = "processor time", "wall"
MAX_POOL = 64 * 1024**2  # numbers
_COPIES = {"eager": 4, "graph": 16}  # of a layer, each with weights of its own
_LEAST_S = {"cpu": 1e-3, "cuda": 5e-4}  # a job of one round; the clock and the call are 1% of it
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Clock:
    """How units are timed: `runtime` `eager` or `graph` (CUDA), until rounds or seconds are up."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    runtime: str = "eager"
    channels_last: bool = False
    num_rounds: int = 9
    budget_s: float = 90.0

    def check(self) -> None:
        """Raise DistilleryError for a runtime that this device has not."""
        if self.runtime not in RUNTIMES:
            raise DistilleryError(f"runtime {self.runtime!r}: choose one of {', '.join(RUNTIMES)}")
        if self.runtime == "graph" and self.device.type != "cuda":
            raise DistilleryError("runtime graph needs a CUDA device; use --runtime eager")

    def tensors(self) -> Tensors:
        """Inputs as this clock's runtime has them."""
        tensors = Tensors(self.batch_size, self.device, self.dtype)
        tensors.channels_last = self.channels_last
        return tensors


Forms = Mapping[str, tuple[Unit, int | None]]


@torch.no_grad()
def time_units(
    forms: Forms, clock: Clock, num_weights: int, on_round: Callable[[int], object] = lambda n: None
) -> dict[str, Spread]:
    """Median seconds of one call of each form, with quartiles; `num_weights` are the model's.

    `forms`: {name: (unit, rank)}, rank None for dense.
    """
    clock.check()
    tensors, pool = clock.tensors(), Pool(forms, clock, num_weights)
    jobs = {name: _job(unit, rank, clock, tensors, pool) for name, (unit, rank) in forms.items()}
    counts = {name: _num_calls(job, clock) for name, job in jobs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    started = time.perf_counter()
    for index in range(clock.num_rounds):
        if index >= _LEAST_ROUNDS and time.perf_counter() - started > clock.budget_s:
            break
        for name, job in jobs.items():
            seconds[name].append(_seconds(job, counts[name], clock.device) / counts[name])
        on_round(index)
    calls = _COPIES["graph"] if clock.runtime == "graph" else 1
    return {name: spread(np.array(taken) / calls) for name, taken in seconds.items()}


def spread(seconds: np.ndarray) -> Spread:
    """The median of rounds and their quartiles, to six digits."""
    low, median, high = (float(f"{q:.6g}") for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return {"median_s": median, "quartiles_s": [low, high]}


class Pool:
    """One tensor of random numbers; `fill` gives a module weights that are views of it."""

    def __init__(self, forms: Forms, clock: Clock, num_weights: int) -> None:
        units = (unit.module for unit, _ in forms.values())
        largest = max(p.numel() for module in units for p in module.parameters())
        size = max(2 * largest, min(num_weights, MAX_POOL))
        self.numbers = (torch.randn(size, device=clock.device) * 0.02).to(clock.dtype)
        self.channels_last, self._next = clock.channels_last, 0

    def fill(self, module: nn.Module) -> nn.Module:
        """A copy of a module on meta, with weights; takes the next numbers of the pool in turn."""
        module = copy.deepcopy(module).eval()
        for parent in module.modules():
            for name, parameter in parent.named_parameters(recurse=False):
                setattr(parent, name, nn.Parameter(self._view(parameter.shape), False))
            for name, buffer in parent.named_buffers(recurse=False):
                setattr(parent, name, torch.zeros_like(buffer, device=self.numbers.device))
        return module

    def _view(self, shape: torch.Size) -> Tensor:
        size = shape.numel()
        if self._next + size > len(self.numbers):
            self._next = 0
        numbers = self.numbers[self._next : self._next + size]
        self._next += (size + 63) // 64 * 64  # kernels want aligned weights
        if self.channels_last and len(shape) == 4:
            out, channels, height, width = shape
            return numbers.view(out, height, width, channels).permute(0, 3, 1, 2)
        return numbers.view(shape)


def _job(
    unit: Unit, rank: int | None, clock: Clock, tensors: Tensors, pool: Pool
) -> Callable[[], object]:
    """One call in eager mode, `_COPIES` of them as a graph, each with its own weights."""
    shape = nn.Module.to(form_of(unit, rank), clock.dtype)
    copies = [pool.fill(shape) for _ in range(_COPIES[clock.runtime])]
    if clock.runtime == "eager":
        turn = itertools.cycle(copies)
        return lambda: unit.call(next(turn), tensors)

    def run() -> list[object]:
        return [unit.call(module, tensors) for module in copies]

    graphs = CudaGraphs()
    graphs.warm_up(run)
    return graphs.record(run)[0]


def _num_calls(job: Callable[[], object], clock: Clock) -> int:
    """How often a job runs in a round; the first call of all warms it up."""
    job()
    least = _LEAST_S[clock.device.type]
    return max(1, min(200, round(least / max(_seconds(job, 1, clock.device), 1e-7))))


def _seconds(job: Callable[[], object], num_calls: int, device: torch.device) -> float:
    now = time.thread_time if clock_of(device) == PROCESSOR else time.perf_counter
    return seconds_of(job, device, num_calls, now)


def clock_of(device: torch.device) -> str:
    """`processor time` on a CPU with one thread, else `wall`."""
    return PROCESSOR if device.type == "cpu" and torch.get_num_threads() == 1 else WALL
