"""Images from a U-Net in the teacher's place: one prompt and one noise per record.

In: a teacher, a U-Net (its own or a student), perhaps a ControlNet, prompts. Out: images, or shards
of PNG images. The noise is a function of (seed, key), so every model gets the same, and the batch
size changes nothing but the last bits of floating-point sums. Not here: metrics.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from distillery.core.progress import count
from distillery.core.run import Run as StageRun
from distillery.core.runtime import EAGER, Runtime
from distillery.core.shards import shard_name, write_table_shard
from distillery.data.conditions.reader import as_hint
from distillery.diffusion.conditioning import NEGATIVE, TEXT, Conditioning
from distillery.diffusion.noise import initial_noise
from distillery.models.lora.negative import takes_negative
from distillery.sampling.ddim import Run, Step, Told, ddim_scheduler, sample_latents
from distillery.sampling.runtime import in_runtime
from distillery.sampling.samples import AND, SCHEMA, Prompt, batches, encode_png
from distillery.teacher.load import Teacher, decode_latents, encode_prompts

SHARD_SIZE_SAMPLES = 64


class Maps(Protocol):
    """Condition maps by key; `ConditionMaps` are those of the pipeline's records."""

    kinds: tuple[str, ...]

    def images(self, kind: str, keys: Sequence[str]) -> np.ndarray:
        """uint8 [n, H, W, 3] of one kind."""


@dataclass(frozen=True)
class Control:
    """A ControlNet with the condition maps of the records; its hint holds the maps of all kinds."""

    controlnet: ControlNetModel
    maps: Maps

    def hint(self, prompts: Sequence[Prompt]) -> Tensor:
        """[n, 3 * number of kinds, H, W] in [0, 1]: a prompt's own maps, zeros for the others."""
        model = self.controlnet
        rows = [self._row(prompt) for prompt in prompts]
        return torch.stack(rows).flatten(1, 2).to(model.device, model.dtype)

    def _row(self, prompt: Prompt) -> Tensor:
        wanted = prompt.condition.split(AND)
        maps = {kind: as_hint(self.maps.images(kind, [prompt.key]))[0] for kind in wanted}
        nothing = torch.zeros_like(maps[wanted[0]])
        return torch.stack([maps.get(kind, nothing) for kind in self.maps.kinds])


@dataclass(frozen=True)
class Sampler:
    """A teacher, or a student in its place, and how to sample; guidance_scale 1: no guidance.

    `negative` is the prompt that images are led away from: guidance does, and without it a U-Net
    that can be told (`models.lora.negative`); others take no notice.
    What is recorded or compiled of a step is kept for the next batch of the same shape.
    """

    teacher: Teacher
    num_inference_steps: int
    guidance_scale: float
    resolution_px: int
    noise_seed: int
    control: Control | None = None
    runtime: Runtime = EAGER
    negative: str = ""
    _kept: dict[str, Run] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_unet(self, unet: UNet2DConditionModel) -> "Sampler":
        """The same with another U-Net."""
        return replace(self, teacher=replace(self.teacher, unet=unet))

    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents."""
        vae_scale = 2 ** (len(self.teacher.vae.config.block_out_channels) - 1)
        side = self.resolution_px // vae_scale
        return (self.teacher.unet.config.in_channels, side, side)

    def noise(self, prompts: Sequence[Prompt]) -> Tensor:
        """Initial noise float32 [n, C, h, w], each record's own."""
        rows = [initial_noise(self.noise_seed, p.key, self.latent_shape()) for p in prompts]
        return torch.stack(rows)

    def images(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """uint8 RGB [n, H, W, 3], decoded from `latents`."""
        return decode_latents(self.teacher.vae, self.latents(prompts))

    def latents(self, prompts: Sequence[Prompt]) -> Tensor:
        """[n, C, h, w] by DDIM (`ddim.sample_latents`), in the U-Net's dtype."""
        unet = self.teacher.unet
        scheduler = ddim_scheduler(self.teacher.scheduler.config, self.num_inference_steps)
        told = Told(self._conditioning([p.caption for p in prompts]), scale=self.guidance_scale)
        if told.is_guided:
            told = replace(told, empty=self._conditioning([self.negative]))
        elif self.negative and takes_negative(unet):
            told = replace(told, conditioning=self._away(told.conditioning))
        if self.control is not None:
            net, hint = self.control.controlnet, self.control.hint(prompts)
            told = replace(told, controlnet=net, hint=hint)
        noise = self.noise(prompts).to(unet.device, unet.dtype)
        return sample_latents(unet, scheduler, noise, told, self._step(told))

    def _step(self, told: Told) -> Run:
        """A step of this model in this runtime, made once."""
        if "step" not in self._kept:
            step = Step(self.teacher.unet, told.controlnet, told.scale)
            num_rows = len(told.conditioning[TEXT]) * (1 + told.is_guided)
            self._kept["step"] = in_runtime(step, self.runtime, num_rows)
        return self._kept["step"]

    def _away(self, conditioning: Conditioning) -> Conditioning:
        """The conditioning with what the negative prompt differs by from the empty one."""
        negative, empty = encode_prompts(self.teacher, [self.negative, ""])
        return {**conditioning, NEGATIVE: (negative - empty).expand_as(conditioning[TEXT])}

    def _conditioning(self, captions: Sequence[str]) -> dict[str, Tensor]:
        return {TEXT: encode_prompts(self.teacher, captions)}


def write_samples(
    folder: Path,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    batch_size: int,
    run: StageRun,
) -> None:
    """Write `folder/00000.parquet`, ... with one row per prompt; finished shards are picked up.

    A bar may count the steps of all images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(batches(prompts, SHARD_SIZE_SAMPLES)):
        path = folder / shard_name(index, "parquet")
        name = f"{folder.name}-{path.name}"
        if run.reuse(path, name):
            count(len(part) * sampler.num_inference_steps)
            continue
        write_table_shard(path, list(_rows(sampler, part, batch_size)), SCHEMA)
        run.finish(path, name)


def _rows(sampler: Sampler, prompts: Sequence[Prompt], batch_size: int) -> Iterator[dict]:
    for batch in batches(prompts, batch_size):
        for prompt, image in zip(batch, sampler.images(batch), strict=True):
            yield {
                "key": prompt.key,
                "image": {"bytes": encode_png(image), "path": None},
                "caption": prompt.caption,
                "noise_seed": sampler.noise_seed,
                "condition": prompt.condition,
            }
