"""Running the iterations of `full_size`: predicted memory, then measured time and memory.

In: rows by name, an architecture's parts on meta, a device and sizes. Out: one plain dict per row.
Weights are random, of the scale that keeps activations near 1. A row that does not fit the device
is not run, and says so; its predicted memory is given all the same.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil
import torch
from torch import nn

from distillery.errors import DistilleryError
from distillery.metrics.cost import NO_MEMORY, time_in_turn
from distillery.metrics.full_size import ROWS, Iteration
from distillery.metrics.memory_model import predict_step
from distillery.models.control_adapter import UNI_CONTROLNET_KINDS
from distillery.models.control_hints import VAE_SCALE
from distillery.models.counts import count_parameters
from distillery.train.batch import Batch

MEASURED, PREDICTED = "measured", "predicted only"
NO_FIT, OUT_OF_MEMORY = "does not fit", "out of memory"


def choose_rows(wanted: str) -> list[str]:
    """The names in a comma-separated list, or `all`; raises DistilleryError for an unknown one."""
    if wanted == "all":
        return list(ROWS)
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names or [wanted]:
        if name not in ROWS:
            raise DistilleryError(f"--rows: {name!r} is unknown; use all or {', '.join(ROWS)}")
    return names


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
    found = {"title": row.title, "paper": dict(row.paper), **_describe(iteration, batch)}
    if not num_repeats:
        return {**found, "status": PREDICTED}
    free, needed = free_bytes(device), found["predicted_bytes"]["peak"]
    if needed > free:
        reason = f"needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        return {**found, "status": NO_FIT, "reason": reason}
    try:
        return {**found, **_measure(iteration, batch, device, num_repeats, on_step)}
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return {**found, "status": OUT_OF_MEMORY, "reason": str(error).splitlines()[0]}
    finally:
        _release(device)


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
    step = VAE_SCALE * 2 ** (len(config.block_out_channels) - 1)
    if resolution_px < step or resolution_px % step:
        raise DistilleryError(f"--resolution: {resolution_px} is not a multiple of {step}")
    side, tokens = resolution_px // VAE_SCALE, _num_tokens(parts)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch_size, *shape, device=device)

    latent = (config.in_channels, side, side)
    maps = {kind: draw(3, resolution_px, resolution_px) for kind in UNI_CONTROLNET_KINDS}
    return Batch(
        keys=[str(index) for index in range(batch_size)],
        latents=draw(*latent),
        noise=draw(*latent),
        timesteps=torch.full((batch_size,), 500, device=device),
        text=draw(tokens, config.cross_attention_dim),
        outputs={view: draw(*latent) for view in ("cond", "uncond")},
        conditions=maps,
    )


def _num_tokens(parts: Mapping[str, nn.Module]) -> int:
    return parts["text_encoder"].config.max_position_embeddings


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
    cpu_s: list[float] = []

    def step() -> None:
        started = time.process_time()
        sum(iteration.objective(iteration.model, batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        cpu_s.append(time.process_time() - started)

    step()  # makes the optimiser's state
    on_step(1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed = time_in_turn({"step": step}, num_repeats, len(batch.keys), on_step)
    median, settings = timed["step"]
    return {
        "status": MEASURED,
        "seconds_per_iteration": median.value,
        "seconds_range": [median.ci_low, median.ci_high],
        "seconds_settings": settings,
        # Of all threads; other work on a busy machine does not count.
        "cpu_seconds_per_iteration": statistics.median(cpu_s[2:]),
        **_peaks(device),
    }


def _peaks(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"peak_allocated_bytes": None, "peak_reserved_bytes": None, "memory": NO_MEMORY}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
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
        text=like(batch.text),
        outputs={name: like(output) for name, output in batch.outputs.items()},
        conditions={name: like(maps).sigmoid() for name, maps in batch.conditions.items()},
    )


@torch.no_grad()
def materialise(modules: list[nn.Module], device: torch.device) -> None:
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
    """Memory that a new iteration may take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _is_out_of_memory(error: BaseException) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "allocate memory" in str(error)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
