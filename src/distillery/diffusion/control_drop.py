"""Leaving out conditions and captions in training, so that the adapter works with any of them.

In: how many samples and conditions, and how often. Out: masks. Draws come from torch's default
generator on the CPU, which the loop seeds at every step, so a resumed training drops the same.
Source: Uni-ControlNet (Zhao et al. 2023), 4.1, with ELR-Diffusion's rates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drop:
    """Probabilities: of dropping `each` condition, unless all are kept or dropped; of a caption."""

    each: float
    keep_all: float
    drop_all: float
    caption: float

    def kept_conditions(self, num_samples: int, num_conditions: int) -> Tensor:
        """Which conditions a sample keeps, bool [num_samples, num_conditions]."""
        fate = torch.rand(num_samples, 1)
        kept = torch.rand(num_samples, num_conditions) >= self.each
        return (fate < self.keep_all) | (kept & (fate < 1 - self.drop_all))

    def kept_captions(self, num_samples: int) -> Tensor:
        """Which samples keep their caption, bool [num_samples]."""
        return torch.rand(num_samples) >= self.caption


def single_conditions(num_samples: int, num_conditions: int) -> Tensor:
    """Sample i keeps condition i mod `num_conditions` alone: bool [num_samples, num_conditions]."""
    own = torch.arange(num_samples) % num_conditions
    return own[:, None] == torch.arange(num_conditions)


def apply_mask(hint: Tensor, kept: Tensor) -> Tensor:
    """The hint [n, 3 k, H, W] with the conditions that are not in `kept` [n, k] zeroed."""
    channels = kept.to(hint).repeat_interleave(3, dim=1)
    return hint * channels[:, :, None, None]
