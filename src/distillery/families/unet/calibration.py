"""What the teacher's cached records of `train` say of its U-Net: moments, errors of changes.

In: the teacher's folder and cache. Out: inputs as they were recorded, second moments of every
layer, and the errors that a plan by latency weighs. Not here: plans.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.core.artifacts import content_of, hash_json, read_json, write_json
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.models.lowrank.errors import Errors, measured_errors
from distillery.models.lowrank.moments import collect_second_moments
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import alphas_cumprod, load_scheduler
from distillery.train.order import batch_items

NUM_DAMAGE_SAMPLES = 32  # every block is removed on these
NUM_LAYER_SAMPLES = 16  # every layer is tried on these: there are ten times as many


@dataclass(frozen=True)
class Calibration:
    """Records in the cache's view `base`: `num_samples` for moments, `batch_size` at once.

    `memo`: a folder where errors are kept for the next plan of the same teacher; none if None.
    """

    teacher: Path
    base: Path
    num_samples: int
    batch_size: int
    memo: Path | None = None

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
        moments: Callable[[], Mapping[str, Tensor]],
    ) -> Errors:
        """Of every candidate rank of every layer, and of every block's removal."""
        kept = self._kept(ranks)
        if kept is not None and kept.is_file():
            return Errors.of_json(read_json(kept))
        blocks, layers = (
            list(self.inputs(unet.device, min(self.num_samples, count)))
            for count in (NUM_DAMAGE_SAMPLES, NUM_LAYER_SAMPLES)
        )
        errors = measured_errors(unet, ranks, blocks, layers, moments())
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, errors.as_json())
        return errors

    def _kept(self, ranks: Mapping[str, Sequence[int]]) -> Path | None:
        """The file of these errors: its name covers all that they depend on but the code."""
        if self.memo is None:
            return None
        made_of = {
            "teacher": content_of(self.teacher), "base": content_of(self.base),
            "num_samples": [self.num_samples, NUM_DAMAGE_SAMPLES, NUM_LAYER_SAMPLES],
            "batch_size": self.batch_size, "ranks": {n: list(r) for n, r in ranks.items()},
        }  # fmt: skip
        return self.memo / f"{hash_json(made_of)[:16]}.json"


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
