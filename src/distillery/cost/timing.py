"""What a U-Net costs when it runs: latency, one training step, device memory.

In: modules on their device, batch size, number of repeats. Out: `Estimate`s of the median in
seconds, with quartiles. Models are timed in turn, so that a slow moment of the machine hits all of
them. Counts (parameters, MACs) are `counts`. Process memory never stands for a device's:
without CUDA it is not measured.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distillery.cost.workload import Workload
from distillery.metrics.intervals import Estimate

NO_MEMORY = "no CUDA device; process memory does not stand for a device's"
Timed = dict[str, tuple[Estimate, dict[str, Any]]]


@dataclass
class Seconds:
    """Of every repeat of a job: wall time, and processor time of all threads."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def median_seconds(samples: list[float], batch_size: int) -> tuple[Estimate, dict[str, Any]]:
    """Median with its distribution-free interval, the range: 98% of cover for 7 samples."""
    low, q1, median, q3, high = np.quantile(samples, (0, 0.25, 0.5, 0.75, 1)).tolist()
    estimate = Estimate(median, float(np.std(samples)), low, high, len(samples))
    return estimate, {
        "quartiles": [float(f"{q:.6g}") for q in (q1, q3)],
        "batch_size": batch_size,
        "interval": "fastest and slowest",
    }


def time_in_turn(
    jobs: Mapping[str, Callable[[], object]],
    num_repeats: int,
    batch_size: int,
    on_repeat: Callable[[int], object],
) -> Timed:
    """Wall seconds of every job, after one unmeasured round; {name: (median, settings)}."""
    seconds = run_in_turn(jobs, num_repeats, on_repeat)
    return {name: median_seconds(taken.wall, batch_size) for name, taken in seconds.items()}


def run_in_turn(
    jobs: Mapping[str, Callable[[], object]],
    num_repeats: int,
    on_repeat: Callable[[int], object],
) -> dict[str, Seconds]:
    """Run all jobs once, unmeasured, then `num_repeats` times one after the other."""
    seconds = {name: Seconds() for name in jobs}
    for repeat in range(num_repeats + 1):
        for name, job in jobs.items():
            wall, processor = _seconds(job)
            if repeat:
                seconds[name].wall.append(wall)
                seconds[name].processor.append(processor)
            on_repeat(1)
    return seconds


def _seconds(job: Callable[[], object]) -> tuple[float, float]:
    wait()
    started, started_processor = time.perf_counter(), time.process_time()
    job()
    wait()
    return time.perf_counter() - started, time.process_time() - started_processor


def seconds_of(
    job: Callable[[], object],
    device: torch.device,
    num_calls: int = 1,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Of all calls together by the clock `now`, with all done before and after."""
    wait(device)
    started = now()
    for _ in range(num_calls):
        job()
    wait(device)
    return now() - started


def wait(device: torch.device | None = None) -> None:
    """Until the device, CUDA's current one if None, has done all it was given."""
    if device.type == "cuda" if device else torch.cuda.is_available():
        torch.cuda.synchronize(device)


def latency_job(run: Callable[[Workload], Tensor], workload: Workload) -> Callable[[], object]:
    """One evaluation without gradients, as in sampling."""
    return torch.no_grad()(lambda: run(workload))


def training_job(
    run: Callable[[Workload], Tensor], workload: Workload, trained: Sequence[nn.Parameter]
) -> Callable[[], object]:
    """One step: forward, mean squared error against a cached output, backward, AdamW."""
    optimizer = torch.optim.AdamW(trained, lr=0.0)

    def step() -> None:
        output = run(workload)
        torch.nn.functional.mse_loss(output, torch.zeros_like(output)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_memory_bytes(job: Callable[[], object]) -> int | None:
    """Most CUDA memory allocated during a job, or None without CUDA."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    job()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
