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
from distillery.diffusion.conditioning import NEGATIVE, SCALE, TEXT, Conditioning, repeated, stacked
from distillery.diffusion.denoise import combine, denoise
from distillery.diffusion.objectives import Diffusion, TeacherOutput, Terms, online_output
from distillery.models.lora.guidance_embedding import EMBEDDING_DIM, scale_embedding
from distillery.models.lora.layers import adapters_off

Pair = tuple[Tensor, Tensor]
TeacherPair = Callable[[Batch, Tensor], Pair]


def guided(cond: Tensor, uncond: Tensor, scales: Tensor, rescale: float = 0.0) -> Tensor:
    """uncond + s (cond - uncond) [n, C, h, w]; s is `scales` [n].

    With `rescale` phi, phi times that output at the conditional one's standard deviation (over C,
    h, w), plus 1 - phi times as it is: Lin et al. 2024, eq. 15 and 16.
    """
    output = combine(uncond, cond, scales.to(cond).view(-1, 1, 1, 1))
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

    @torch.no_grad()
    def answer(self, batch: Batch, noisy: Tensor) -> Tensor:
        """The U-Net's output for the batch's own conditioning."""
        with adapters_off(self.unet) if self.shared else contextlib.nullcontext():
            return online_output(self.unet)(batch, noisy)

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
class Negatives:
    """Negative prompts that are drawn for half of the samples; the other half has none.

    `bank` and `empty` are texts, [k, length, width] and [1, length, width]; `ask` is the teacher.
    """

    bank: Tensor
    empty: Tensor
    ask: TeacherOutput

    def draw(self, count: int, *, random: bool) -> Tensor:
        """int64 [count]: places in the bank, -1 for none; from torch's generator, or by turns."""
        if not random:
            numbers = torch.arange(count)
            return torch.where(numbers % 2 == 1, numbers % len(self.bank), -1)
        is_none = torch.rand(count) < 0.5
        return torch.where(is_none, -1, torch.randint(len(self.bank), (count,)))

    def told(self, places: Tensor) -> Tensor:
        """What the drawn prompts' texts differ by from the empty one's, zeros for none."""
        differences = self.bank[places.clamp(min=0)] - self.empty
        return differences * (places >= 0).view(-1, 1, 1)

    def instead(self, uncond: Tensor, batch: Batch, noisy: Tensor, told: Tensor) -> Tensor:
        """`uncond`, the teacher's output without a caption, with that for the drawn prompts."""
        texts = {TEXT: (self.empty + told).to(batch.conditioning[TEXT])}
        asked = self.ask(dataclasses.replace(batch, conditioning=texts), noisy)
        is_drawn = told.flatten(1).any(1).view(-1, 1, 1, 1)
        return torch.where(is_drawn, asked.to(uncond), uncond)


@dataclass(frozen=True)
class DistillGuided:
    """w(t) |guided teacher(z_t, t, c) - student(z_t, t, c)|^2, the student evaluated once.

    Where scales vary, each sample has its own, and the student gets its embedding: at random
    while it trains, evenly spread over the batch in eval mode. With `negatives` the guided teacher
    leads away from a drawn prompt instead of the empty one, and the student is told which.
    """

    diffusion: Diffusion
    teacher: TeacherPair
    scales: Scales
    rescale: float = 0.0
    negatives: Negatives | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        return {"output": self.diffusion.error(*self.outputs(model, batch), batch)}

    def prepare(self, batch: Batch, share: int = 0, num_shares: int = 1) -> Batch:
        """The batch with a scale for each sample, from torch's generator where scales vary, and
        perhaps a negative prompt.

        They are drawn for all of a step's shares, so that they do not depend on their number.
        """
        drawn = self._draw(len(batch.keys) * num_shares, random=True)
        shares = {name: values[share::num_shares] for name, values in drawn.items()}
        return dataclasses.replace(batch, drawn=shares)

    def _draw(self, count: int, *, random: bool) -> dict[str, Tensor]:
        drawn = {SCALE: self.scales.draw(count, random=random)}
        if self.negatives is not None:
            drawn[NEGATIVE] = self.negatives.draw(count, random=random)
        return drawn

    def outputs(self, model: nn.Module, batch: Batch) -> Pair:
        """The student's output and the guided teacher's [n, C, h, w].

        The teacher is asked first, so that a shared module is the student again before any
        activation is kept for the backward pass.
        """
        noisy = self.diffusion.noisy(batch)
        drawn = batch.drawn or self._draw(len(batch.keys), random=model.training)
        drawn = {name: values.to(noisy.device) for name, values in drawn.items()}
        cond, uncond = self.teacher(batch, noisy)
        told: dict[str, Tensor] = {}
        if self.negatives is not None:
            told[NEGATIVE] = self.negatives.told(drawn[NEGATIVE])
            uncond = self.negatives.instead(uncond, batch, noisy, told[NEGATIVE])
        wanted = guided(cond, uncond, drawn[SCALE], self.rescale)
        if self.scales.varies:
            told[SCALE] = scale_embedding(drawn[SCALE], EMBEDDING_DIM)
        return self.predict(model, noisy, batch, told), wanted

    def predict(self, model: nn.Module, noisy: Tensor, batch: Batch, told: Conditioning) -> Tensor:
        """The student's native output [n, C, h, w], told this beside the batch's conditioning."""
        return denoise(model, noisy, batch.timesteps, {**batch.conditioning, **told})
