"""A small picture of what a student makes of validation samples, while it trains.

In: the teacher's VAE and schedule, samples of its cache, a U-Net, perhaps a ControlNet. Out: a
grid: the condition maps if there are any, the samples' images, the student's below, always from the
same noise. It judges nothing: that is `evaluate`'s.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from distillery.diffusion.conditioning import SCALE
from distillery.diffusion.noise import initial_noise
from distillery.models.control_adapter.hints import stack
from distillery.models.lora.guidance_embedding import scale_embedding
from distillery.sampling.ddim import Told, ddim_scheduler, sample_latents
from distillery.teacher.load import as_pixels, decode_latents, load_module, load_scheduler
from distillery.train.sources import TrainingData

NUM_PROMPTS = 6
NUM_STEPS = 8
GUIDANCE_SCALE = 3.0


class Preview:
    """Draws always the same records from the same noise; where `val` is empty, from `train`."""

    def __init__(self, teacher: Path, data: TrainingData) -> None:
        self._batch, self._empty = data.shown(NUM_PROMPTS), data.empty
        shape = self._batch.latents.shape[1:]
        self._noise = torch.stack([initial_noise(0, key, shape) for key in self._batch.keys])
        self._vae = load_module(AutoencoderKL, teacher, "vae", "cpu", torch.float32)
        self._schedule = load_scheduler(teacher).config

    def draw(self, unet: nn.Module) -> Image.Image:
        """Two rows: the samples' images, and the U-Net's for their captions, guided.

        A U-Net with a w-embedding is told the scale instead.
        """
        told, width = self._told(unet.device), unet.config.time_cond_proj_dim
        if width is None:
            empty = {name: row.to(unet.device) for name, row in self._empty.items()}
            return self._grid(unet, replace(told, empty=empty, scale=GUIDANCE_SCALE))
        scales = torch.full((len(self._noise),), GUIDANCE_SCALE, device=unet.device)
        conditioning = {**told.conditioning, SCALE: scale_embedding(scales, width)}
        return self._grid(unet, replace(told, conditioning=conditioning))

    def draw_unguided(self, unet: nn.Module) -> Image.Image:
        """The same for a U-Net that needs no guidance: one evaluation a step."""
        return self._grid(unet, self._told(unet.device))

    def draw_controlled(
        self, unet: nn.Module, controlnet: nn.Module, kinds: Sequence[str]
    ) -> Image.Image:
        """Three rows: maps of the first of `kinds`, images, and those made under its control.

        `kinds` are all that `controlnet` takes. Without guidance, which few-step teachers do not
        have.
        """
        maps = self._batch.conditions[kinds[0]]
        hint = stack(kinds, {kinds[0]: maps}).to(unet.device)
        told = replace(self._told(unet.device), controlnet=controlnet, hint=hint)
        return self._grid(unet, told, maps)

    def _told(self, device: torch.device) -> Told:
        rows = self._batch.conditioning.items()
        return Told({name: values.to(device) for name, values in rows})

    @torch.no_grad()
    def _grid(self, unet: nn.Module, told: Told, *above: Tensor) -> Image.Image:
        device, vae = unet.device, self._vae.to(unet.device)
        scheduler = ddim_scheduler(self._schedule, NUM_STEPS)
        made = sample_latents(unet, scheduler, self._noise.to(device), told)
        decoded = decode_latents(vae, torch.cat([self._batch.latents.to(device), made]))
        vae.to("cpu")
        rows = [*map(as_pixels, above), *np.split(decoded, 2)]
        return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
