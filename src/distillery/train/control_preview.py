"""A small picture of what a student ControlNet makes of validation maps, while it trains.

In: the teacher's U-Net, VAE and schedule, samples with condition maps. Out: a grid: the maps, their
images, and below the images made under the student's control, always from the same noise. Without
guidance, which few-step teachers do not have. It judges nothing: that is `evaluate`'s.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from distillery.diffusion.batch import Batch, Samples
from distillery.diffusion.control import control_residuals, controlled_output
from distillery.diffusion.noise import initial_noise
from distillery.teacher.load import load_module, load_scheduler
from distillery.train.preview import NUM_PROMPTS, NUM_STEPS


class ControlPreview:
    """Draws the first records of `samples`, which has `num_slots` items to a record."""

    def __init__(
        self, teacher: Path, unet: UNet2DConditionModel, samples: Samples, kind: str, num_slots: int
    ) -> None:
        items = np.arange(0, min(len(samples), NUM_PROMPTS * num_slots), num_slots)
        self._unet, self._kind = unet, kind
        self._batch = samples.batch(items).to(unet.device)
        shape = self._batch.latents.shape[1:]
        noise = [initial_noise(0, key, shape) for key in self._batch.keys]
        self._noise = torch.stack(noise).to(unet.device)
        self._vae = load_module(AutoencoderKL, teacher, "vae", "cpu", torch.float32)
        self._scheduler = DDIMScheduler.from_config(
            load_scheduler(teacher).config, timestep_spacing="trailing", clip_sample=False
        )

    @torch.no_grad()
    def draw(self, controlnet: nn.Module) -> Image.Image:
        """Three rows: maps, decoded latents of their images, images under control."""
        vae = self._vae.to(self._unet.device)
        factor, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
        latents = torch.cat([self._batch.latents, self._sample(controlnet)])
        decoded = vae.decode(latents / factor + shift).sample / 2 + 0.5
        maps = self._batch.conditions[self._kind]
        rows = [_row(images) for images in (maps, *decoded.chunk(2))]
        vae.to("cpu")
        return Image.fromarray(np.concatenate(rows))

    def _sample(self, controlnet: nn.Module) -> Tensor:
        """Latents by DDIM (Song et al. 2021), eta 0."""
        self._scheduler.set_timesteps(NUM_STEPS, device=self._unet.device)
        latents = self._noise * self._scheduler.init_noise_sigma
        for step in self._scheduler.timesteps:
            inputs = self._scheduler.scale_model_input(latents, step)
            batch = self._at(step)
            residuals = control_residuals(controlnet, inputs, batch, self._kind)
            output = controlled_output(self._unet, inputs, batch, residuals)
            latents = self._scheduler.step(output.float(), step, latents).prev_sample
        return latents

    def _at(self, step: Tensor) -> Batch:
        timesteps = step.expand(len(self._batch.keys))
        return dataclasses.replace(self._batch, timesteps=timesteps)


def _row(images: Tensor) -> np.ndarray:
    """uint8 [H, n * W, 3] of [n, 3, H, W] in [0, 1]."""
    levels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.concatenate(list(levels.cpu().numpy()), axis=1)
