"""Running the iterations of `training`: predicted memory, then measured time and memory.

In: rows by name, an architecture's parts on meta, a `Setup`. Out: one plain dict per row.
Weights are random, of the scale that keeps activations near 1. A row that does not fit the device
is not run, and says so; its predicted memory is given all the same.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from distillery.core.errors import DistilleryError, reason_of
from distillery.core.runtime import Kind
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
from distillery.cost.full_size.runtimes import quickest, ready
from distillery.cost.full_size.setup import Setup
from distillery.cost.full_size.training import ROWS, Iteration, Row
from distillery.cost.memory_model import predict_step
from distillery.cost.profile import num_tokens
from distillery.cost.timing import Seconds, median_seconds, run_in_turn
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.models.control_adapter.adapter import UNI_CONTROLNET_KINDS
from distillery.models.control_adapter.hints import VAE_SCALE


def profile_row(name: str, parts: Mapping[str, nn.Module], setup: Setup) -> dict[str, Any]:
    """One row. Raises DistilleryError if the resolution does not fit the U-Net."""
    row = ROWS[name]
    batch = make_batch(parts, torch.device("meta"), setup.batch_size, setup.resolution_px)
    iteration = _build(row, parts, setup)
    costs = setup.predictions.get(
        _about(name, parts, setup), lambda: _costs(iteration, batch, setup)
    )
    described = {"title": row.title, "paper": dict(row.paper), **costs}
    if not setup.num_repeats:
        return {**described, "status": PREDICTED}
    free, needed = free_bytes(setup.device), described["predicted_bytes"]["peak"]
    if needed > free:
        return {**described, **does_not_fit(needed, free)}
    try:
        return {**described, **_measure(iteration, batch, setup)}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return {**described, "status": OUT_OF_MEMORY, "reason": reason_of(error)}
    finally:
        release(setup.device)


def _build(row: Row, parts: Mapping[str, nn.Module], setup: Setup) -> Iteration:
    iteration = row.build(parts)
    if setup.dtype != "fp32":
        iteration.narrow(setup.torch_dtype)
    if setup.weights == "bf16":
        iteration.narrow_trained()
    if setup.checkpointing:
        iteration.checkpoint()
    return iteration


def _about(name: str, parts: Mapping[str, nn.Module], setup: Setup) -> dict[str, Any]:
    sizes = {"batch_size": setup.batch_size, "checkpointing": setup.checkpointing}
    return setup.about(name, parts, **sizes)


def predicted_peak(name: str, parts: Mapping[str, nn.Module], setup: Setup) -> int:
    """Bytes at the peak of a row's step."""

    def predict() -> dict[str, Any]:
        meta = torch.device("meta")
        batch = make_batch(parts, meta, setup.batch_size, setup.resolution_px)
        return _costs(_build(ROWS[name], parts, setup), batch, setup)

    return setup.predictions.get(_about(name, parts, setup), predict)["predicted_bytes"]["peak"]


def _costs(iteration: Iteration, batch: Batch, setup: Setup) -> dict[str, Any]:
    trained = iteration.trained()
    memory = predict_step(
        lambda: sum(iteration.objective(iteration.model, batch).values()),
        trained,
        held=iteration.held.values(),
        teacher=iteration.teacher.values(),
        dtype=setup.torch_dtype,
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


def full_size_step(name: str, parts: Mapping[str, nn.Module], setup: Setup) -> Callable[[], object]:
    """A row's training step with random weights, everything on the device."""
    meta = torch.device("meta")
    batch = make_batch(parts, meta, setup.batch_size, setup.resolution_px)
    return _on_device(_build(ROWS[name], parts, setup), batch, setup)


def _on_device(iteration: Iteration, meta_batch: Batch, setup: Setup) -> Callable[[], object]:
    device = setup.device
    materialise([*iteration.held.values(), *iteration.teacher.values()], device)
    return _step(iteration, prepared(iteration, _real(meta_batch, device), device), setup)


def _measure(iteration: Iteration, meta_batch: Batch, setup: Setup) -> dict[str, Any]:
    """All runtimes one after another, so that their memory adds up nowhere; the quickest counts."""
    device, step = setup.device, _on_device(iteration, meta_batch, setup)
    found: dict[Kind, dict[str, Any]] = {}
    taken: dict[Kind, Seconds] = {}
    for kind in setup.runtimes:
        job = ready(step, kind, device)
        if job is None:
            continue
        reset_peaks(device)
        taken[kind] = run_in_turn({"step": job}, setup.num_repeats, setup.on_step)["step"]
        found[kind] = _figures(taken[kind], setup.batch_size) | peaks(device)
        del job
        release(device)
    if not taken:
        return {"status": PREDICTED}  # no runtime asked for is to be had, which was said
    best = quickest(taken, "wall")
    return {"status": MEASURED, "runtime": best, **found[best], "runtimes": found}


def prepared(iteration: Iteration, batch: Batch, device: torch.device) -> Batch:
    """The batch with the objective's random choices, as the training loop hands it over."""
    prepare = getattr(iteration.objective, "prepare", None)
    return prepare(batch).to(device) if prepare else batch


def _step(iteration: Iteration, batch: Batch, setup: Setup) -> Callable[[], object]:
    """Forward, backward and AdamW, in mixed precision where the setup has a narrower dtype."""
    device, trained = setup.device, iteration.trained()
    options = {"lr": 1e-5, "fused": True}
    if device.type == "cuda":
        options = {**options, "lr": torch.tensor(1e-5, device=device), "capturable": True}
    optimizer = torch.optim.AdamW(trained, **options)
    model, narrow = iteration.model, setup.torch_dtype

    def step() -> None:
        # Without its cache of casts, which would outlive a recording.
        with torch.autocast(
            device.type, narrow, enabled=narrow != torch.float32, cache_enabled=False
        ):
            loss = sum(iteration.objective(model, batch).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _figures(seconds: Seconds, batch_size: int) -> dict[str, Any]:
    median, settings = median_seconds(seconds.wall, batch_size)
    return {
        "seconds_per_iteration": median.value,
        "seconds_range": [median.ci_low, median.ci_high],
        "seconds_settings": settings,
        # Of all threads; other work on a busy machine does not count.
        "cpu_seconds_per_iteration": statistics.median(seconds.processor),
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
