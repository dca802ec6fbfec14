"""Running the iterations of `full_size`: predicted memory, then measured time and memory.

In: rows by name, an architecture's parts on meta, a device and sizes. Out: one plain dict per row.
Weights are random, of the scale that keeps activations near 1. A row that does not fit the device
is not run, and says so; its predicted memory is given all the same.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.cost.counts import count_parameters
from distillery.cost.full_size.device import (
    MEASURED,
    OUT_OF_MEMORY,
    PREDICTED,
    does_not_fit,
    free_bytes,
    is_out_of_memory,
    materialise,
    peaks,
    release,
    reset_peaks,
)
from distillery.cost.full_size.training import ROWS, Iteration
from distillery.cost.memory_model import predict_step
from distillery.cost.profile import num_tokens
from distillery.cost.timing import median_seconds, run_in_turn
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.models.control_adapter.adapter import UNI_CONTROLNET_KINDS
from distillery.models.control_adapter.hints import VAE_SCALE


def profile_row(
    name: str,
    parts: Mapping[str, nn.Module],
    device: torch.device,
    *,
    batch_size: int,
    resolution_px: int,
    num_repeats: int,
    on_step: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """One row; `num_repeats` 0 predicts only. `on_step` is told 1 after each iteration.

    Raises DistilleryError if the resolution does not fit the U-Net.
    """
    row = ROWS[name]
    iteration = row.build(parts)
    batch = make_batch(parts, torch.device("meta"), batch_size, resolution_px)
    described = {"title": row.title, "paper": dict(row.paper), **_describe(iteration, batch)}
    if not num_repeats:
        return {**described, "status": PREDICTED}
    free, needed = free_bytes(device), described["predicted_bytes"]["peak"]
    if needed > free:
        return {**described, **does_not_fit(needed, free)}
    try:
        return {**described, **_measure(iteration, batch, device, num_repeats, on_step)}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return {**described, "status": OUT_OF_MEMORY, "reason": str(error).splitlines()[0]}
    finally:
        release(device)


def _describe(iteration: Iteration, batch: Batch) -> dict[str, Any]:
    trained = iteration.trained()
    memory = predict_step(
        lambda: sum(iteration.objective(iteration.model, batch).values()),
        trained,
        held=iteration.held.values(),
        teacher=iteration.teacher.values(),
    )
    counts = count_parameters({**iteration.held, **iteration.teacher}, trained)
    return {"parameters": counts, "predicted_bytes": memory.as_dict()}


def make_batch(
    parts: Mapping[str, nn.Module], device: torch.device, batch_size: int, resolution_px: int
) -> Batch:
    """Random latents, noise, text, condition maps and teacher outputs for any row."""
    config = parts["unet"].config
    side, tokens = latent_side(parts, resolution_px), num_tokens(parts["text_encoder"])

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch_size, *shape, device=device)

    latent = (config.in_channels, side, side)
    maps = {kind: draw(3, resolution_px, resolution_px) for kind in UNI_CONTROLNET_KINDS}
    return Batch(
        keys=[str(index) for index in range(batch_size)],
        latents=draw(*latent),
        noise=draw(*latent),
        timesteps=torch.full((batch_size,), 500, device=device),
        conditioning={TEXT: draw(tokens, config.cross_attention_dim)},
        outputs={view: draw(*latent) for view in ("cond", "uncond")},
        conditions=maps,
    )


def latent_side(parts: Mapping[str, nn.Module], resolution_px: int) -> int:
    """Side of the latents; raises DistilleryError if the resolution does not fit the U-Net."""
    step = VAE_SCALE * 2 ** (len(parts["unet"].config.block_out_channels) - 1)
    if resolution_px < step or resolution_px % step:
        raise DistilleryError(f"--resolution: {resolution_px} is not a multiple of {step}")
    return resolution_px // VAE_SCALE


def _measure(
    iteration: Iteration,
    meta_batch: Batch,
    device: torch.device,
    num_repeats: int,
    on_step: Callable[[int], object],
) -> dict[str, Any]:
    materialise([*iteration.held.values(), *iteration.teacher.values()], device)
    batch = _real(meta_batch, device)
    optimizer = torch.optim.AdamW(iteration.trained(), lr=1e-5, fused=True)

    def step() -> None:
        sum(iteration.objective(iteration.model, batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # makes the optimiser's state
    on_step(1)
    reset_peaks(device)
    seconds = run_in_turn({"step": step}, num_repeats, on_step)["step"]
    median, settings = median_seconds(seconds.wall, len(batch.keys))
    return {
        "status": MEASURED,
        "seconds_per_iteration": median.value,
        "seconds_range": [median.ci_low, median.ci_high],
        "seconds_settings": settings,
        # Of all threads; other work on a busy machine does not count.
        "cpu_seconds_per_iteration": statistics.median(seconds.processor),
        **peaks(device),
    }


def _real(batch: Batch, device: torch.device) -> Batch:
    """A batch of the same shapes with random values on the device."""

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, device=device)

    return Batch(
        keys=batch.keys,
        latents=like(batch.latents),
        noise=like(batch.noise),
        timesteps=torch.full(batch.timesteps.shape, 500, device=device),
        conditioning={name: like(rows) for name, rows in batch.conditioning.items()},
        outputs={name: like(output) for name, output in batch.outputs.items()},
        conditions={name: like(maps).sigmoid() for name, maps in batch.conditions.items()},
    )
