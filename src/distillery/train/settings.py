"""What a training needs to know beside its model, objective and data, as plain values.

The stages' sections of the params say them all but `betas` and `final_learning_rate_share`, which
only recipes change.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.core.runtime import Kind, MatmulPrecision, MemoryFormat, Runtime
from distillery.train.rounding import RandomlyRoundedAdamW
from distillery.train.state import trainable


@dataclass(frozen=True)
class Settings:
    """One training; `batch_size` counts all processes and accumulated parts together."""

    steps: int
    learning_rate: float
    batch_size: int
    accumulate_steps: int
    weight_decay: float
    warmup_steps: int
    max_grad_norm: float
    ema_decay: float
    precision: Literal["fp32", "bf16", "fp16"]
    gradient_checkpointing: bool
    optimizer: Literal["adamw", "adamw8bit"]
    runtime: Kind
    matmul_precision: MatmulPrecision
    memory_format: MemoryFormat
    checkpoint_every_steps: int
    validate_every_steps: int
    num_val_samples: int
    betas: tuple[float, float] = (0.9, 0.999)
    final_learning_rate_share: float = 0.0
    weights: Literal["fp32", "bf16"] = "fp32"

    @property
    def way(self) -> Runtime:
        """Runtime, precision of products and memory format as one."""
        return Runtime(self.runtime, self.matmul_precision, self.memory_format)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine (Loshchilov & Hutter 2017, SGDR, eq. 5).

        It ends at `final_learning_rate_share` of the full rate.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine, floor = (1 + math.cos(math.pi * done)) / 2, self.final_learning_rate_share
        return self.learning_rate * (floor + (1 - floor) * cosine)

    def make_optimizer(
        self, model: nn.Module, *, recordable: bool = False
    ) -> torch.optim.Optimizer:
        """AdamW (Loshchilov & Hutter 2019) over what requires a gradient.

        `recordable`, on CUDA: its learning rate is a tensor that a CUDA graph can read. With
        `weights` bf16 they are rounded at random.
        """
        trained = trainable(model)
        if not trained:
            raise DistilleryError("training: the model has no trainable parameter")
        options = {
            "lr": self.learning_rate, "betas": self.betas, "weight_decay": self.weight_decay
        }  # fmt: skip
        if recordable:
            options["lr"] = torch.tensor(self.learning_rate, device=trained[0].device)
        if self.weights == "bf16":
            return RandomlyRoundedAdamW(trained, **options)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(trained, **options, fused=True, capturable=recordable)
        return _adamw_8bit()(trained, **options)


def _adamw_8bit() -> type[torch.optim.Optimizer]:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise DistilleryError(
            "training.optimizer: adamw8bit needs bitsandbytes and CUDA; "
            "pip install bitsandbytes, or set adamw"
        ) from None
    return AdamW8bit
