"""A small model and samples with the interfaces of the real ones, and a training of it."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from distillery.diffusion.batch import Batch
from distillery.diffusion.objectives import Diffusion, DistillOutput, cached_output
from distillery.train.loop import Place, fit
from distillery.train.order import Shuffled
from distillery.train.settings import Settings

ALPHA_BAR = torch.linspace(0.999, 0.0, 100)
NUM_SAMPLES, STEPS = 20, 40


class ToyUNet(nn.Module):
    """Conv, dropout, conv; takes and returns what a diffusers U-Net does."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = dropout
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.text = nn.Linear(6, 8)

    def forward(self, x: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Any:
        text = self.text(encoder_hidden_states.mean(1))[:, :, None, None]
        hidden = nn.functional.dropout(self.first(x) + text, self.dropout, self.training)
        scale = (timesteps / 100).view(-1, 1, 1, 1).to(hidden.dtype)
        return SimpleNamespace(sample=self.last(nn.functional.silu(hidden * (1 + scale))))


class ToySamples:
    """Fixed random latents, noise and teacher outputs."""

    def __init__(self, delay_s: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.arrays = [torch.randn(NUM_SAMPLES, 4, 8, 8, generator=generator) for _ in range(3)]
        self.text = torch.randn(NUM_SAMPLES, 5, 6, generator=generator)
        self.delay_s = delay_s
        self.seen: list[int] = []

    def __len__(self) -> int:
        return NUM_SAMPLES

    def batch(self, items: np.ndarray) -> Batch:
        time.sleep(self.delay_s)
        self.seen.extend(items.tolist())
        latents, noise, outputs = (array[items] for array in self.arrays)
        timesteps = torch.from_numpy(items * 5 + 4)
        keys = [str(item) for item in items]
        return Batch(keys, latents, noise, timesteps, {"text": self.text[items]}, {"cond": outputs})


def settings(**changed: Any) -> Settings:
    """Settings of a short training."""
    values = {
        "steps": STEPS, "learning_rate": 1e-2, "batch_size": 6, "weight_decay": 0.01,
        "warmup_steps": 5, "max_grad_norm": 1.0, "ema_decay": 0.9, "precision": "fp32",
        "gradient_checkpointing": False, "optimizer": "adamw", "runtime": "eager",
        "matmul_precision": "highest", "memory_format": "auto", "accumulate_steps": 1,
        "checkpoint_every_steps": 7, "validate_every_steps": 10, "num_val_samples": 4,
    }  # fmt: skip
    return Settings(**{**values, **changed})


def objective() -> DistillOutput:
    """Output distillation in v."""
    diffusion = Diffusion.create(
        ALPHA_BAR, "v_prediction", space="native", kind="min_snr", gamma=5.0
    )
    return DistillOutput(diffusion, cached_output("cond"), lambda_diffusion=0.1)


def train(folder: Path, samples: ToySamples | None = None, **changed: Any) -> tuple:
    """Train a fresh toy; returns (model, history)."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = ToyUNet(changed.pop("dropout", 0.2))
    model = model.to(memory_format=changed.pop("layout", torch.contiguous_format))
    chosen = samples or ToySamples()
    fixed = chosen.batch(np.arange(4))

    def validate(candidate: nn.Module) -> dict[str, float]:
        return {"loss": float(sum(objective()(candidate, fixed).values()))}

    lesson, validate = changed.pop("objective", objective()), changed.pop("validate", validate)
    chosen_settings, seed = settings(**changed), 0
    history = fit(
        model,
        lesson,
        Shuffled(chosen, chosen_settings.batch_size, seed),
        chosen_settings,
        Place(
            torch.device("cpu"), folder, lambda total, **options: tqdm(total=total, disable=True)
        ),
        seed=seed,
        validate=validate,
    )
    return model, history


def train_to_file(folder: Path, out: Path, delay_s: float) -> None:
    """Train and write the final weights; with a delay, wait at the end to be killed."""
    model, _ = train(folder, ToySamples(delay_s))
    if delay_s:
        out.with_suffix(".waits").touch()
        signal.pause()
    save_file(model.state_dict(), out)
