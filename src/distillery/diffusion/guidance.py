"""Guidance distillation: the guided teacher as one target, and the objective that learns it.

In: the teacher's conditional and unconditional outputs, cached or asked for. Out: the guided
output, and an objective (model, batch) -> loss terms. Sources: Ho & Salimans 2022 (guidance),
Meng et al. 2023 (distilling it), Lin et al. 2024 (rescale). All is linear in the outputs, so it
holds in the teacher's native space, eps or v. Not here: starting points, the training itself.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import SCALE, Conditioning, repeated, stacked
from distillery.diffusion.denoise import denoise
from distillery.diffusion.objectives import Diffusion, Terms, online_output
from distillery.models.lora.guidance_embedding import EMBEDDING_DIM, scale_embedding
from distillery.models.lora.layers import adapters_off

Pair = tuple[Tensor, Tensor]
TeacherPair = Callable[[Batch, Tensor], Pair]


def guided(cond: Tensor, uncond: Tensor, scales: Tensor, rescale: float = 0.0) -> Tensor:
    """uncond + s (cond - uncond) [n, C, h, w], Ho & Salimans 2022, eq. 6; s is `scales` [n].

    With `rescale` phi, phi times that output at the conditional one's standard deviation (over C,
    h, w), plus 1 - phi times as it is: Lin et al. 2024, eq. 15 and 16.
    """
    output = uncond + scales.to(cond).view(-1, 1, 1, 1) * (cond - uncond)
    if not rescale:
        return output
    spread = [x.flatten(1).std(1).view(-1, 1, 1, 1) for x in (cond, output)]
    return output * (rescale * spread[0] / spread[1] + 1 - rescale)


def cached_pair(batch: Batch, noisy: Tensor) -> Pair:
    """The teacher's conditional and unconditional outputs as the cache's views hold them."""
    return batch.outputs["cond"], batch.outputs["uncond"]


@dataclass(frozen=True)
class OnlinePair:
    """Asks a U-Net for its conditional and unconditional outputs, without gradients.

    `empty` is the empty caption's conditioning, one row. `batched`: one evaluation of twice
    the batch, otherwise two. `shared`: `unet` is the student itself, asked with its adapters off.
    """

    unet: nn.Module
    empty: Conditioning
    batched: bool
    shared: bool

    @torch.no_grad()
    def __call__(self, batch: Batch, noisy: Tensor) -> Pair:
        without = dataclasses.replace(batch, conditioning=repeated(self.empty, batch.conditioning))
        with adapters_off(self.unet) if self.shared else contextlib.nullcontext():
            if self.batched:
                return self._at_once(batch, noisy, without)
            ask = online_output(self.unet)
            return ask(batch, noisy), ask(without, noisy)

    def _at_once(self, batch: Batch, noisy: Tensor, without: Batch) -> Pair:
        twice = dataclasses.replace(
            batch,
            timesteps=torch.cat([batch.timesteps, batch.timesteps]),
            conditioning=stacked(batch.conditioning, without.conditioning),
        )
        cond, uncond = online_output(self.unet)(twice, torch.cat([noisy, noisy])).chunk(2)
        return cond, uncond


@dataclass(frozen=True)
class Scales:
    """Guidance scales from `low` to `high`; the student is told them if they differ."""

    low: float
    high: float

    @property
    def varies(self) -> bool:
        return self.low < self.high

    def draw(self, count: int, *, random: bool) -> Tensor:
        """float32 [count]: uniform at random, from torch's generator, or evenly spread."""
        if not self.varies:
            return torch.full((count,), self.low)
        places = torch.rand(count) if random else (torch.arange(count) + 0.5) / count
        return self.low + (self.high - self.low) * places


@dataclass(frozen=True)
class DistillGuided:
    """w(t) |guided teacher(z_t, t, c) - student(z_t, t, c)|^2, the student evaluated once.

    Where scales vary, each sample has its own, and the student gets its embedding: at random
    while it trains, evenly spread over the batch in eval mode.
    """

    diffusion: Diffusion
    teacher: TeacherPair
    scales: Scales
    rescale: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        return {"output": self.diffusion.error(*self.outputs(model, batch), batch)}

    def prepare(self, batch: Batch, share: int = 0, num_shares: int = 1) -> Batch:
        """The batch with a scale for each sample, from torch's generator where scales vary.

        They are drawn for all of a step's shares, so that they do not depend on their number.
        """
        scales = self.scales.draw(len(batch.keys) * num_shares, random=True)
        return dataclasses.replace(batch, drawn={SCALE: scales[share::num_shares]})

    def outputs(self, model: nn.Module, batch: Batch) -> Pair:
        """The student's output and the guided teacher's [n, C, h, w].

        The teacher is asked first, so that a shared module is the student again before any
        activation is kept for the backward pass.
        """
        noisy = self.diffusion.noisy(batch)
        scales = batch.drawn.get(SCALE)
        if scales is None:
            scales = self.scales.draw(len(batch.keys), random=model.training).to(noisy.device)
        wanted = guided(*self.teacher(batch, noisy), scales, self.rescale)
        return self.predict(model, noisy, batch, scales), wanted

    def predict(self, model: nn.Module, noisy: Tensor, batch: Batch, scales: Tensor) -> Tensor:
        """The student's native output [n, C, h, w] for these scales [n]."""
        told = dict(batch.conditioning)
        if self.scales.varies:
            told[SCALE] = scale_embedding(scales, EMBEDDING_DIM)
        return denoise(model, noisy, batch.timesteps, told)
