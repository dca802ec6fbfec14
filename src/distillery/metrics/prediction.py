"""How far a student's prediction is from the teacher's, in units of the teacher's energy.

In: a teacher, a student U-Net, images with captions and keys of records that neither saw. Out: per
record the squared distance, such that the mean over records is ||student - teacher||^2 /
||teacher||^2. This is what distillation minimises, without guidance and without sampling: 0 is the
teacher, 1 an output of zero. Not here: intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.samples import batches
from distillery.teacher.load import Teacher, alphas_cumprod, encode_images, encode_prompts
from distillery.teacher.noise import noise_batch, timesteps
from distillery.train.prediction import add_noise, alpha_sigma

BATCH_SIZE = 64
SETTINGS = {"space": "the teacher's native output", "guidance": "none", "unit": "teacher's energy"}


@dataclass(frozen=True)
class Probe:
    """Noisy latents with what the U-Net is told; all records, each at every slot."""

    noisy: Tensor
    timesteps: Tensor
    text: Tensor

    def ask(self, unet: UNet2DConditionModel, on_batch: Callable[[int], object]) -> Tensor:
        """The U-Net's output float32 [n, C, h, w]."""
        outputs = []
        for index in batches(torch.arange(len(self.noisy)), BATCH_SIZE):
            inputs = (part[index].to(unet.device) for part in (self.noisy, self.timesteps))
            text = self.text[index].to(unet.device, unet.dtype)
            noisy, steps = inputs
            with torch.no_grad():
                output = unet(noisy.to(unet.dtype), steps, encoder_hidden_states=text).sample
            outputs.append(output.float().cpu())
            on_batch(len(index))
        return torch.cat(outputs)


def make_probe(
    teacher: Teacher,
    images: np.ndarray,
    captions: Sequence[str],
    keys: Sequence[str],
    seed: int,
    num_slots: int,
) -> Probe:
    """Noise uint8 images [n, H, W, 3] by the noise plan, n * num_slots rows, slot fastest."""
    latents = torch.cat([encode_images(teacher, part) for part in batches(images, BATCH_SIZE)])
    text = torch.cat([encode_prompts(teacher, part) for part in batches(captions, BATCH_SIZE)])
    latents, text = (x.float().cpu().repeat_interleave(num_slots, 0) for x in (latents, text))
    num_steps = teacher.scheduler.config.num_train_timesteps
    steps = torch.from_numpy(timesteps(seed, keys, num_slots, num_steps)).flatten()
    slots = list(range(num_slots)) * len(keys)
    repeated = [key for key in keys for _ in range(num_slots)]
    noise = noise_batch(seed, repeated, slots, latents.shape[1:])
    alpha, sigma = alpha_sigma(alphas_cumprod(teacher.scheduler), steps)
    return Probe(add_noise(latents, noise, alpha, sigma), steps, text)


def relative_distances(student: Tensor, teacher: Tensor, num_slots: int) -> np.ndarray:
    """Per record, float64 [n]: its squared distance over the mean energy of all records."""
    squared = (student.double() - teacher.double()).pow(2).flatten(1).mean(1)
    energy = teacher.double().pow(2).mean()
    return (squared / energy).view(-1, num_slots).mean(1).numpy()
