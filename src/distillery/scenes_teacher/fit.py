"""The optimisation loop of all teacher components.

In: modules, a loss as a function of the step number, a schedule. Out: trained modules (the
exponential moving average where one is kept). The loss must draw its randomness from the
generator it is given, which depends on (seed, step) alone: so a run that is killed and started
again ends in the same weights. State lives in one safetensors file in the work folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.core.progress import bar

SAVE_INTERVAL_S = 60.0
GRADIENT_NORM = 1.0
ADAM_BETAS = (0.9, 0.99)

Loss = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `lr`, then cosine decay to `final_lr_ratio` of it; no weight decay."""

    num_steps: int
    lr: float
    warmup_steps: int
    final_lr_ratio: float = 0.02
    ema_decay: float = 0.0

    def lr_at(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        cosine = 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
        return self.lr * (self.final_lr_ratio + (1 - self.final_lr_ratio) * cosine)


class _State:
    """Parameters, their average and Adam's moments, under names that are stable across runs."""

    def __init__(self, modules: Mapping[str, nn.Module], schedule: Schedule) -> None:
        named = [(f"{m}.{n}", p) for m, mod in modules.items() for n, p in mod.named_parameters()]
        self.names = [name for name, parameter in named if parameter.requires_grad]
        self.parameters = [p for _, p in named if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.lr, betas=ADAM_BETAS, weight_decay=0.0, fused=True
        )

    def update_average(self, step: int, decay: float) -> None:
        # The ratio lets the average forget the initial weights in short runs.
        weight = 1 - min(decay, (1 + step) / (10 + step))
        values = [p.detach() for p in self.parameters]
        torch._foreach_lerp_(self.average, values, weight)

    def save(self, path: Path, step: int) -> None:
        tensors = {}
        for name, parameter, mean in zip(self.names, self.parameters, self.average, strict=True):
            moments = self.optimizer.state[parameter]
            tensors[f"value/{name}"], tensors[f"mean/{name}"] = parameter.detach(), mean
            tensors[f"m/{name}"], tensors[f"v/{name}"] = moments["exp_avg"], moments["exp_avg_sq"]
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, metadata={"step": str(step)})
        os.replace(temporary, path)

    @torch.no_grad()
    def load(self, path: Path) -> int:
        with safe_open(path, framework="pt") as file:
            step = int(file.metadata()["step"])
            for name, parameter, mean in zip(
                self.names, self.parameters, self.average, strict=True
            ):
                parameter.copy_(file.get_tensor(f"value/{name}"))
                mean.copy_(file.get_tensor(f"mean/{name}"))
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": _like(parameter, file.get_tensor(f"m/{name}")),
                    "exp_avg_sq": _like(parameter, file.get_tensor(f"v/{name}")),
                }
        return step

    @torch.no_grad()
    def use_average(self) -> None:
        for parameter, mean in zip(self.parameters, self.average, strict=True):
            parameter.copy_(mean)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the memory layout and on the device of `parameter`."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Randomness of one step, a function of (seed, step) alone, the same for every device."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def fit(
    label: str,
    modules: Mapping[str, nn.Module],
    loss: Loss,
    schedule: Schedule,
    *,
    state_path: Path,
    seed: int,
) -> None:
    """Train in place; resumes from `state_path` and leaves it behind.

    Raises `DistilleryError` for a loss that is not finite.
    """
    state = _State(modules, schedule)
    start = state.load(state_path) if state_path.exists() else 0
    progress, saved_at, recent = bar(schedule.num_steps, label, initial=start), time.time(), None
    for step in range(start, schedule.num_steps):
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.lr_at(step)
        state.optimizer.zero_grad(set_to_none=True)
        value = loss(step, step_generator(seed, step))
        value.backward()
        number = value.item()
        if not torch.isfinite(value):
            raise DistilleryError(f"{label}: the loss is {number} at step {step}: lower the lr")
        torch.nn.utils.clip_grad_norm_(state.parameters, GRADIENT_NORM, foreach=True)
        state.optimizer.step()
        if schedule.ema_decay:
            state.update_average(step, schedule.ema_decay)
        recent = number if recent is None else 0.98 * recent + 0.02 * number
        progress.set_postfix(loss=f"{recent:.4f}", refresh=False)
        progress.update()
        if time.time() - saved_at > SAVE_INTERVAL_S:
            state.save(state_path, step + 1)
            saved_at = time.time()
    progress.close()
    if start < schedule.num_steps:
        state.save(state_path, schedule.num_steps)
    if schedule.ema_decay:
        state.use_average()
