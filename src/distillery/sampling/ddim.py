"""DDIM from noise to latents: the one sampling loop, of `Sampler` and of previews.

In: a U-Net, a noise schedule, initial noise, conditioning, perhaps a guidance scale and residuals.
Out: latents. Not here: prompts, maps, decoding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from distillery.diffusion.conditioning import Conditioning, repeated, stacked
from distillery.diffusion.denoise import denoise

# From the U-Net's inputs, the timestep and the conditioning to a ControlNet's residuals.
Residuals = Callable[[Tensor, Tensor, Conditioning], list[Tensor]]


@dataclass(frozen=True)
class Told:
    """What the model is told: n rows of `conditioning`, and how far to go beyond it.

    `scale` 1 or less: no guidance, one evaluation a step. Above it `empty` is needed, one row: the
    empty caption's conditioning. `control` gets 2 n rows where there is guidance.
    """

    conditioning: Conditioning
    empty: Conditioning | None = None
    scale: float = 1.0
    control: Residuals | None = None

    @property
    def is_guided(self) -> bool:
        """As in diffusers; turbo models are sampled with 0."""
        return self.scale > 1


def ddim_scheduler(config: dict, num_inference_steps: int, device: torch.device) -> DDIMScheduler:
    """The schedule in a scheduler's config, set to this many steps.

    Timesteps are spaced so that sampling starts at the last one ("trailing"; Lin et al. 2024),
    which zero terminal SNR needs.
    """
    scheduler = DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(num_inference_steps, device=device)
    return scheduler


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel, scheduler: DDIMScheduler, noise: Tensor, told: Told
) -> Tensor:
    """[n, C, h, w] by DDIM (Song et al. 2021), eta 0, in one batch, in the dtype of `noise`.

    The same as StableDiffusionPipeline with this noise, without importing it (5 CPU-s). The U-Net
    is evaluated in its own dtype.
    """
    dtype, conditioning = unet.dtype, told.conditioning
    if told.is_guided:
        conditioning = stacked(repeated(told.empty, conditioning), conditioning)
    latents = noise * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        inputs = torch.cat([latents, latents]) if told.is_guided else latents
        inputs = scheduler.scale_model_input(inputs, step)
        control = told.control and told.control(inputs, step, conditioning)
        output = denoise(unet, inputs.to(dtype), step, conditioning, control)
        if told.is_guided:  # Ho & Salimans 2022, eq. 6
            without, with_text = output.chunk(2)
            output = without + told.scale * (with_text - without)
        latents = scheduler.step(output.to(latents.dtype), step, latents).prev_sample
    return latents
