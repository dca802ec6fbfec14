"""Several ways to do the same, timed in turn in one run.

In: functions by name, a device. Out: seconds of every round, and ratios with their intervals. On
the CPU processor time is measured, so that other work on the machine counts little; on CUDA wall
time, with everything finished.
"""

import random
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from distillery.cost.timing import seconds_of

NUM_RESAMPLES = 2000


def time_ways(
    ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Seconds [rounds] of each way, in an order drawn anew each round; the first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(0)
    for number in range(rounds + 1):
        for name in order.sample(list(ways), len(ways)):
            taken = seconds_of_one(ways[name], device)
            if number:
                seconds[name].append(taken)
    return {name: np.array(values) for name, values in seconds.items()}


def seconds_of_one(job: Callable[[], object], device: torch.device) -> float:
    """Of one call."""
    now = time.process_time if device.type == "cpu" else time.perf_counter
    return seconds_of(job, device, now=now)


def ratio_interval(slow: np.ndarray, fast: np.ndarray) -> tuple[float, float, float]:
    """Median of the rounds' ratios with a 95% bootstrap interval over rounds."""
    ratios = slow / fast
    draws = np.random.default_rng(0).choice(ratios, (NUM_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def ratio_text(slow: np.ndarray, fast: np.ndarray) -> str:
    """`1.85x [1.80, 1.91]`."""
    return "{:5.2f}x [{:.2f}, {:.2f}]".format(*ratio_interval(slow, fast))
