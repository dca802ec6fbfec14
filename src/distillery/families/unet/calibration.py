"""What the teacher's cached records of `train` say of its U-Net: moments, errors of changes.

In: the teacher's folder and cache. Out: inputs as they were recorded, second moments of every
layer, and the errors that a plan by latency weighs. Not here: plans.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.models.lowrank.errors import Errors, measured_errors
from distillery.models.lowrank.moments import collect_second_moments
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import alphas_cumprod, load_scheduler
from distillery.train.order import batch_items

NUM_DAMAGE_SAMPLES = 32  # every layer and every block is tried on these


@dataclass(frozen=True)
class Calibration:
    """Records in the cache's view `base`: `num_samples` for moments, `batch_size` at once."""

    teacher: Path
    base: Path
    num_samples: int
    batch_size: int

    def inputs(self, device: torch.device, num_samples: int | None = None) -> Iterator[dict]:
        """U-Net arguments of training items."""
        cache = TeacherCache(self.base, {}, len(alphas_cumprod(load_scheduler(self.teacher))))
        return cached_inputs(
            self.teacher, cache, num_samples=num_samples or self.num_samples,
            batch_size=self.batch_size, device=device,
        )  # fmt: skip

    def moments(self, unet: UNet2DConditionModel, names: Iterable[str]) -> dict[str, Tensor]:
        """Second moments of layers' inputs or outputs."""
        return collect_second_moments(unet, self.inputs(unet.device), names=sorted(set(names)))

    def errors(
        self,
        unet: UNet2DConditionModel,
        ranks: Mapping[str, Sequence[int]],
        moments: Mapping[str, Tensor],
    ) -> Errors:
        """Of every candidate rank of every layer, and of every block's removal."""
        batches = list(self.inputs(unet.device, min(self.num_samples, NUM_DAMAGE_SAMPLES)))
        return measured_errors(unet, ranks, batches, moments)


def cached_inputs(
    teacher: Path, cache: TeacherCache, *, num_samples: int, batch_size: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """U-Net arguments of `num_samples` training items, noisy latents at all noise levels."""
    alpha_bar = alphas_cumprod(load_scheduler(teacher))
    samples = cache.samples("train")
    items = batch_items(0, 0, min(num_samples, len(samples)), len(samples))
    for start in range(0, len(items), batch_size):
        batch = samples.batch(items[start : start + batch_size]).to(device)
        alpha, sigma = alpha_sigma(alpha_bar, batch.timesteps)
        yield {
            "sample": add_noise(batch.latents, batch.noise, alpha, sigma),
            "timestep": batch.timesteps,
            "encoder_hidden_states": batch.conditioning[TEXT],
        }
