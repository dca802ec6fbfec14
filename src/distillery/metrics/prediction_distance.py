"""How far a student's prediction is from the teacher's, in units of the teacher's energy.

In: a teacher, a student, images with captions, condition maps and keys of records that neither
saw. Out: per record the squared distance, such that the mean over records is ||student -
teacher||^2 / ||teacher||^2. This is what distillation minimises, without sampling: 0 is the
teacher, 1 an output of zero. Teacher and student are functions (`Predict`): a U-Net alone, with
classifier-free guidance, or with a ControlNet. Not here: intervals, loading models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.denoise import combine, control_residuals, denoise
from distillery.diffusion.noise import noise_batch, timesteps
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.sampling.samples import batches
from distillery.teacher.load import Teacher, alphas_cumprod, encode_images, encode_prompts

BATCH_SIZE = 64
SETTINGS = {"space": "the teacher's native output", "unit": "teacher's energy"}


@dataclass(frozen=True)
class Question:
    """One batch: noisy latents [n, C, h, w], timesteps [n], text [n, L, D] of captions and of "".

    `maps` are condition maps [n, 3, H, W] in [0, 1], where there are any.
    """

    noisy: Tensor
    timesteps: Tensor
    text: Tensor
    empty: Tensor
    maps: Tensor | None


Predict = Callable[[Question], Tensor]


def plain(unet: UNet2DConditionModel) -> Predict:
    """The U-Net's output for the caption."""
    return lambda q: denoise(unet, q.noisy, q.timesteps, {TEXT: q.text})


def guided(predict: Predict, scale: float) -> Predict:
    """Without text, plus `scale` times the step from there to the caption."""
    return lambda q: combine(predict(replace(q, text=q.empty)), predict(q), scale)


def controlled(unet: UNet2DConditionModel, controlnet: nn.Module) -> Predict:
    """The U-Net's output with the ControlNet's residuals added, at scale 1."""

    def predict(q: Question) -> Tensor:
        told = {TEXT: q.text}
        residuals = control_residuals(controlnet, q.noisy, q.timesteps, told, q.maps)
        return denoise(unet, q.noisy, q.timesteps, told, residuals)

    return predict


@dataclass(frozen=True)
class Probe:
    """Noisy latents with what a model is told; all records, each at every slot.

    `empty` is the text of "" [1, L, D]; `maps` has one row per record, not per slot.
    """

    noisy: Tensor
    timesteps: Tensor
    text: Tensor
    empty: Tensor
    num_slots: int
    maps: Tensor | None = None

    @torch.no_grad()
    def ask(
        self,
        predict: Predict,
        on_batch: Callable[[int], object],
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The output float32 [n, C, h, w]."""
        outputs = []
        for index in batches(torch.arange(len(self.noisy)), BATCH_SIZE):
            maps = None if self.maps is None else self.maps[index // self.num_slots].to(device)
            noisy, steps, text = (
                part[index].to(device) for part in (self.noisy, self.timesteps, self.text)
            )
            empty = self.empty.to(device).expand_as(text)
            outputs.append(predict(Question(noisy, steps, text, empty, maps)).float().cpu())
            on_batch(len(index))
        return torch.cat(outputs)


def make_probe(
    teacher: Teacher,
    images: np.ndarray,
    captions: Sequence[str],
    keys: Sequence[str],
    seed: int,
    num_slots: int,
    maps: Tensor | None = None,
) -> Probe:
    """Noise uint8 images [n, H, W, 3] by the noise plan, n * num_slots rows, slot fastest.

    `maps` are the records' condition maps, float32 [n, 3, H, W] in [0, 1].
    """
    latents = torch.cat([encode_images(teacher, part) for part in batches(images, BATCH_SIZE)])
    text = torch.cat([encode_prompts(teacher, part) for part in batches(captions, BATCH_SIZE)])
    latents, text = (x.float().cpu().repeat_interleave(num_slots, 0) for x in (latents, text))
    num_steps = teacher.scheduler.config.num_train_timesteps
    steps = torch.from_numpy(timesteps(seed, keys, num_slots, num_steps)).flatten()
    slots = list(range(num_slots)) * len(keys)
    repeated = [key for key in keys for _ in range(num_slots)]
    noise = noise_batch(seed, repeated, slots, latents.shape[1:])
    alpha, sigma = alpha_sigma(alphas_cumprod(teacher.scheduler), steps)
    empty = encode_prompts(teacher, [""]).float().cpu()
    return Probe(add_noise(latents, noise, alpha, sigma), steps, text, empty, num_slots, maps)


def relative_distances(student: Tensor, teacher: Tensor, num_slots: int) -> np.ndarray:
    """Per record, float64 [n]: its squared distance over the mean energy of all records."""
    squared = (student.double() - teacher.double()).pow(2).flatten(1).mean(1)
    energy = teacher.double().pow(2).mean()
    return (squared / energy).view(-1, num_slots).mean(1).numpy()
