"""How a recipe's numbers become trainings of the one loop.

In: a drawing function of (step, generator), numbers of the recipe, a work folder. Out: trained
models, by `train.loop`. All randomness of a step comes from its own generator, a function of
(seed, step) alone: so a run that is killed and started again ends in the same weights. One process;
where there are more, each computes the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillery.core.progress import bar
from distillery.diffusion.batch import Batch
from distillery.diffusion.objectives import Terms
from distillery.train.loop import Place, fit
from distillery.train.settings import Settings

CHECKPOINT_EVERY_STEPS = 100  # 20 s to 2 min of the shipped recipe's trainings on one core
FINAL_LEARNING_RATE_SHARE = 0.02
ADAM_BETAS = (0.9, 0.99)


class Inputs(dict[str, Tensor]):
    """A batch of a model that is no diffusion model: its inputs by name."""

    def to(self, device: torch.device) -> Inputs:
        """The same on another device."""
        return Inputs({name: value.to(device) for name, value in self.items()})


@dataclass(frozen=True)
class Drawn:
    """Batches that `draw` makes of the step's number and the step's own generator."""

    draw: Callable[[int, torch.Generator], Batch | Inputs]
    num_steps: int
    seed: int

    def __len__(self) -> int:
        return self.num_steps

    def at(self, step: int, share: int, num_shares: int) -> Batch | Inputs:
        """The batch of a step, the same for every process and device."""
        seed = (self.seed * 1_000_003 + step) % 2**63
        return self.draw(step, torch.Generator().manual_seed(seed))


def settings_of(part: Mapping[str, Any], phase: Mapping[str, Any]) -> Settings:
    """`num_steps` and `lr` of a phase with the rest of its part of the recipe; no weight decay."""
    return Settings(
        steps=phase["num_steps"],
        learning_rate=phase["lr"],
        batch_size=part["batch_size"],
        accumulate_steps=1,
        weight_decay=0.0,
        warmup_steps=part["warmup_steps"],
        max_grad_norm=1.0,
        ema_decay=part.get("ema_decay", 0.0),
        precision="fp32",
        gradient_checkpointing=False,
        optimizer="adamw",
        runtime="eager",
        matmul_precision="highest",
        memory_format="auto",
        checkpoint_every_steps=CHECKPOINT_EVERY_STEPS,
        validate_every_steps=phase["num_steps"],
        num_val_samples=0,
        betas=ADAM_BETAS,
        final_learning_rate_share=FINAL_LEARNING_RATE_SHARE,
    )


def train(
    model: nn.Module,
    objective: Callable[[nn.Module, Any], Terms],
    draw: Callable[[int, torch.Generator], Batch | Inputs],
    settings: Settings,
    *,
    folder: Path,
    seed: int,
) -> None:
    """Train `model` in place where it is; resumes from `folder`, whose name labels the progress."""
    device = next(model.parameters()).device
    place = Place(device, folder, lambda total, **options: bar(total, folder.name, **options))
    fit(model, objective, Drawn(draw, settings.steps, seed), settings, place, seed=seed)
