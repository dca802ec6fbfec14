"""A small picture of what a student makes of the validation prompts, while it trains.

In: the teacher's VAE and schedule, text embeddings from its cache, a U-Net. Out: a grid, the
validation images above, the student's below. It judges nothing: that is `evaluate`'s.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import nn

from distillery.diffusion.noise import initial_noise
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import load_module, load_scheduler

NUM_PROMPTS = 6
NUM_STEPS = 8
GUIDANCE_SCALE = 3.0


class Preview:
    """Draws always the same prompts from the same noise; where `val` is empty, from `train`."""

    def __init__(self, teacher: Path, cache: TeacherCache) -> None:
        samples = cache.samples("val") or cache.samples("train")
        num_slots = cache.meta.num_slots
        records = range(0, min(len(samples), NUM_PROMPTS * num_slots), num_slots)
        self._batch, self._empty = samples.batch(list(records)), cache.empty_text()
        shape = self._batch.latents.shape[1:]
        self._noise = torch.stack([initial_noise(0, key, shape) for key in self._batch.keys])
        self._vae = load_module(AutoencoderKL, teacher, "vae", "cpu", torch.float32)
        self._scheduler = DDIMScheduler.from_config(load_scheduler(teacher).config)

    @torch.no_grad()
    def draw(self, unet: nn.Module) -> Image.Image:
        """Two rows: decoded validation latents, and the U-Net's images for their captions."""
        device, vae = unet.device, self._vae.to(unet.device)
        pipeline = StableDiffusionPipeline(
            vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=self._scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        text = self._batch.text.to(device)
        made = pipeline(
            prompt_embeds=text,
            negative_prompt_embeds=self._empty.to(device).expand_as(text),
            latents=self._noise.to(device),
            num_inference_steps=NUM_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            output_type="np",
        ).images
        real = vae.decode(self._batch.latents.to(device) / vae.config.scaling_factor).sample
        real = (real.permute(0, 2, 3, 1).cpu().numpy() / 2 + 0.5).clip(0, 1)
        rows = [np.concatenate(list(images), axis=1) for images in (real, made)]
        return Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8))
