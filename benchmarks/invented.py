"""Invented records and settings, for timing a training whose numbers do not matter.

In: shapes. Out: records as a cache in memory gives them, in half precision, and the settings of a
training that neither saves nor validates. Not here: models and clocks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.noise import noise_batch
from distillery.train.settings import Settings


class Cached:
    """`num` records: latents and outputs [*latent], embeddings [*text], maps of 8 x the latents."""

    def __init__(
        self, latent: tuple[int, int, int], text: tuple[int, int], kinds: Sequence[str] = (),
        num: int = 64,
    ) -> None:  # fmt: skip
        draw = np.random.default_rng(0).standard_normal
        self.latent = latent
        self.latents, self.outputs = (draw((num, *latent)).astype(np.float16) for _ in range(2))
        self.text = draw((num, *text)).astype(np.float16)
        self.maps = {kind: torch.rand(num, 3, *(8 * side for side in latent[1:])) for kind in kinds}

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, items: np.ndarray) -> Batch:
        keys = [str(item) for item in items]

        def rows(arrays: np.ndarray) -> Tensor:
            return torch.from_numpy(np.stack([arrays[i] for i in items]).astype(np.float32))

        return Batch(
            keys, rows(self.latents), noise_batch(0, keys, [0] * len(keys), self.latent),
            torch.from_numpy((items * 37) % 1000), {TEXT: rows(self.text)},
            {"cond": rows(self.outputs)}, {kind: maps[items] for kind, maps in self.maps.items()},
        )  # fmt: skip


def settings(steps: int, batch_size: int, **changed: Any) -> Settings:
    """Of so many steps in full precision, eager, but for what is `changed`."""
    plain = {
        "learning_rate": 1e-5, "accumulate_steps": 1, "weight_decay": 0.01, "warmup_steps": 1,
        "max_grad_norm": 1.0, "ema_decay": 0.0, "precision": "fp32",
        "gradient_checkpointing": False, "optimizer": "adamw", "runtime": "eager",
        "matmul_precision": "highest", "memory_format": "auto", "checkpoint_every_steps": 10**6,
        "validate_every_steps": 10**6, "num_val_samples": 1,
    }  # fmt: skip
    return Settings(steps=steps, batch_size=batch_size, **{**plain, **changed})
