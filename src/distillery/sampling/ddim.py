"""DDIM from noise to latents: the one sampling loop, of `Sampler` and of previews.

In: a U-Net, a noise schedule, initial noise, conditioning, perhaps a guidance scale, a ControlNet
and its maps. Out: latents. Not here: prompts, decoding, how a device runs the step (`runtime`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.progress import count
from distillery.diffusion.conditioning import Conditioning, repeated, stacked
from distillery.diffusion.denoise import combine, control_residuals, denoise
from distillery.models.student_controlnet.encode_once import answering, encoded_maps

# What calls a step with its inputs: as it is, or by way of a recording of it.
Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Told:
    """What the model is told: n rows of `conditioning`, and how far to go beyond it.

    `scale` 1 or less: no guidance, one evaluation a step. Above it `empty` is needed, one row: the
    empty caption's conditioning. `controlnet` gets the maps `hint`, n rows.
    """

    conditioning: Conditioning
    empty: Conditioning | None = None
    scale: float = 1.0
    controlnet: nn.Module | None = None
    hint: Tensor | None = None

    @property
    def is_guided(self) -> bool:
        """As in diffusers; turbo models are sampled with 0."""
        return self.scale > 1

    def inputs(self) -> dict[str, Any]:
        """All that a step needs beside latents and timestep, for 2 n rows where it is guided.

        Maps are encoded here, once.
        """
        conditioning = self.conditioning
        if self.is_guided:
            conditioning = stacked(repeated(self.empty, conditioning), conditioning)
        if self.controlnet is None:
            return {"conditioning": conditioning}
        hint = self.hint.repeat(1 + self.is_guided, 1, 1, 1)
        features = encoded_maps(self.controlnet, hint)
        return {"conditioning": conditioning, "hint": hint, "features": features}


@dataclass(frozen=True)
class Step:
    """The model's native output at a timestep [n, C, h, w], guided: all that a step evaluates."""

    unet: UNet2DConditionModel
    controlnet: nn.Module | None
    scale: float

    def __call__(self, latents: Tensor, timestep: Tensor, told: Mapping[str, Any]) -> Tensor:
        """`told` as `Told.inputs` gives it. The U-Net is evaluated in its own dtype."""
        is_guided, conditioning = self.scale > 1, told["conditioning"]
        inputs = torch.cat([latents, latents]) if is_guided else latents
        control = self._control(inputs, timestep, told) if self.controlnet else None
        output = denoise(self.unet, inputs.to(self.unet.dtype), timestep, conditioning, control)
        return combine(*output.chunk(2), self.scale) if is_guided else output

    def _control(self, inputs: Tensor, timestep: Tensor, told: Mapping[str, Any]) -> list[Tensor]:
        with answering(self.controlnet, told["features"]):
            return control_residuals(
                self.controlnet, inputs, timestep, told["conditioning"], told["hint"]
            )


def ddim_scheduler(config: dict, num_inference_steps: int) -> DDIMScheduler:
    """The schedule in a scheduler's config, set to this many steps, on the CPU.

    Timesteps are spaced so that sampling starts at the last one ("trailing"; Lin et al. 2024),
    which zero terminal SNR needs.
    """
    scheduler = DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    noise: Tensor,
    told: Told,
    run: Run | None = None,
) -> Tensor:
    """[n, C, h, w] by DDIM (Song et al. 2021), eta 0, in one batch, in the dtype of `noise`.

    The same as StableDiffusionPipeline with this noise, without importing it (5 CPU-s). `run` is
    called with a step's inputs in place of `Step`. The schedule stays on the CPU, where its
    coefficients are: looking them up on a GPU would wait for it at every step.
    """
    run = run or Step(unet, told.controlnet, told.scale)
    inputs, latents = told.inputs(), noise * scheduler.init_noise_sigma
    on_device = scheduler.timesteps.to(noise.device)
    for timestep, there in zip(scheduler.timesteps, on_device, strict=True):
        output = run(latents, there, inputs).to(latents.dtype)
        latents = scheduler.step(output, timestep, latents).prev_sample
        count(len(latents))
    return latents
