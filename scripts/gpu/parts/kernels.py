"""Where a step's time goes: the kernels of training and sampling by name, longest first.

Out: in the files of the parts `training` and `sampling`, for each step the milliseconds of all its
kernels, how many there are, and the 30 longest sorts as [ms, how often, name]. They are those of
eager steps, which a recording replays as they are.
"""

from collections.abc import Callable
from typing import Any

import torch
from common import Place
from torch.profiler import ProfilerActivity, profile

from distillery.cost.full_size.setup import Setup
from distillery.cost.full_size.training_run import full_size_step
from distillery.cost.timing import wait
from parts.sampling import networks_of, step_of
from parts.training import random_model, sizes_of, training_step

NUM_LONGEST = 30
ADAPTERS = ("uni_controlnet", "elr")  # rows of `distillery profile`
DRAWN = ("whole student", "guidance student")


def run(place: Place) -> None:
    training, sampling = place.record("training"), place.record("sampling")
    batch = 2 if place.dry else 8
    for name in ADAPTERS:
        training.measure(f"{name}/b{batch}/kernels", _adapter, place, name, batch)
    for name in ("low_rank",) if place.dry else ("low_rank", "dense"):
        training.measure(f"{name}/kernels", _unet, place, name)
    networks = networks_of(place)
    for name in DRAWN[:1] if place.dry else DRAWN:
        sampling.measure(f"{name}/b{batch}/kernels", _drawn, place, networks, name, batch)


def _adapter(place: Place, name: str, batch: int) -> dict[str, Any]:
    dtype, px = place.precision, 64 if place.dry else 512
    setup = Setup(place.device, px, batch, dtype=dtype)
    return _kernels(place, full_size_step(name, place.parts(), setup))


def _unet(place: Place, name: str) -> dict[str, Any]:
    return _kernels(place, training_step(place, random_model(place, name), sizes_of(place)))


def _drawn(place: Place, networks: dict, name: str, batch: int) -> dict[str, Any]:
    step, told, noise = step_of(place, networks, name, batch)
    timestep, inputs = torch.full((), 500, device=place.device), told.inputs()
    return _kernels(place, torch.no_grad()(lambda: step(noise, timestep, inputs)))


def _kernels(place: Place, job: Callable[[], object]) -> dict[str, Any]:
    """Of one call, after two that make what is made once."""
    activity = ProfilerActivity.CPU if place.dry else ProfilerActivity.CUDA
    field = "self_cpu_time_total" if place.dry else "self_device_time_total"
    for _ in range(1 if place.dry else 2):
        job()
    wait(place.device)
    with profile(activities=[activity]) as profiler:
        job()
        wait(place.device)
    sorts = sorted(
        (
            [getattr(event, field) / 1e3, event.count, event.key]
            for event in profiler.key_averages()
        ),
        reverse=True,
    )
    return {
        "ms": sum(ms for ms, _, _ in sorts),
        "kernels": sum(count for _, count, _ in sorts),
        "longest": [[round(ms, 3), count, name[:160]] for ms, count, name in sorts[:NUM_LONGEST]],
    }
