"""What a U-Net costs when it runs: latency, one training step, device memory.

In: modules on their device, batch size, number of repeats. Out: `Estimate`s of the median in
seconds, with quartiles. Models are timed in turn, so that a slow moment of the machine hits all of
them. Counts (parameters, MACs) are `models.counts`. Process memory never stands for a device's:
without CUDA it is not measured.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from distillery.metrics.intervals import Estimate

HINT_SCALE = 8  # pixels of a condition map per latent pixel, as in all ControlNets
NO_MEMORY = "no CUDA device; process memory does not stand for a device's"
Timed = dict[str, tuple[Estimate, dict[str, Any]]]


@dataclass(frozen=True)
class Workload:
    """One batch of random latents, timesteps and text for an architecture."""

    sample: Tensor
    timestep: Tensor
    encoder_hidden_states: Tensor

    @classmethod
    def of(cls, unet: UNet2DConditionModel, batch_size: int, num_tokens: int) -> "Workload":
        """Inputs of the model's own size, on its device."""
        config, device, side = unet.config, unet.device, unet.config.sample_size
        if device.type == "meta":
            make = torch.empty
        else:
            generator = torch.Generator().manual_seed(0)

            def make(*shape: int) -> Tensor:
                return torch.randn(*shape, generator=generator)

        return cls(
            make(batch_size, config.in_channels, side, side).to(device, unet.dtype),
            torch.full((batch_size,), 500, device=device),
            make(batch_size, num_tokens, config.cross_attention_dim).to(device, unet.dtype),
        )

    def run(self, unet: UNet2DConditionModel, **control: Any) -> Tensor:
        """One evaluation; `control` are a ControlNet's residuals."""
        return unet(
            self.sample,
            self.timestep,
            encoder_hidden_states=self.encoder_hidden_states,
            **control,
        ).sample

    def control(self, controlnet: ControlNetModel) -> dict[str, Any]:
        """A ControlNet's residuals for a random map, as the U-Net's arguments."""
        config, sample = controlnet.config, self.sample
        pixels = sample.shape[-1] * HINT_SCALE
        hint = torch.full(
            (len(sample), config.conditioning_channels, pixels, pixels), 0.5,
            device=sample.device, dtype=sample.dtype,
        )  # fmt: skip
        down, mid = controlnet(
            sample,
            self.timestep,
            encoder_hidden_states=self.encoder_hidden_states,
            controlnet_cond=hint,
            return_dict=False,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

    def twice(self) -> "Workload":
        """Both halves of classifier-free guidance in one batch."""
        return Workload(*(torch.cat([part, part]) for part in vars(self).values()))


def median_seconds(samples: list[float], batch_size: int) -> tuple[Estimate, dict[str, Any]]:
    """Median with its distribution-free interval, the range: 98% of cover for 7 samples."""
    low, q1, median, q3, high = np.quantile(samples, (0, 0.25, 0.5, 0.75, 1)).tolist()
    estimate = Estimate(median, float(np.std(samples)), low, high, len(samples))
    return estimate, {
        "quartiles": [float(f"{q:.6g}") for q in (q1, q3)],
        "batch_size": batch_size,
        "interval": "fastest and slowest",
    }


def time_in_turn(
    jobs: Mapping[str, Callable[[], object]],
    num_repeats: int,
    batch_size: int,
    on_repeat: Callable[[int], object],
) -> Timed:
    """Seconds of every job, after one unmeasured round; {name: (median, settings)}."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(num_repeats + 1):
        for name, job in jobs.items():
            taken = _seconds(job)
            if repeat:
                seconds[name].append(taken)
            on_repeat(1)
    return {name: median_seconds(taken, batch_size) for name, taken in seconds.items()}


def _seconds(job: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    job()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def latency_job(run: Callable[[Workload], Tensor], workload: Workload) -> Callable[[], object]:
    """One evaluation without gradients, as in sampling."""
    return torch.no_grad()(lambda: run(workload))


def training_job(
    run: Callable[[Workload], Tensor], workload: Workload, trained: Sequence[nn.Parameter]
) -> Callable[[], object]:
    """One step: forward, mean squared error against a cached output, backward, AdamW."""
    optimizer = torch.optim.AdamW(trained, lr=0.0)

    def step() -> None:
        output = run(workload)
        torch.nn.functional.mse_loss(output, torch.zeros_like(output)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_memory_bytes(job: Callable[[], object]) -> int | None:
    """Most CUDA memory allocated during a job, or None without CUDA."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    job()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
