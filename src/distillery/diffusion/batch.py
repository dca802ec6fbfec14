"""What one training step is computed from; made by the teacher's cache, read by objectives."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from distillery.diffusion.conditioning import Conditioning


class Movable(Protocol):
    """What a training step can be computed from: anything that goes to a device as a whole."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        ...


@dataclass(frozen=True)
class Batch:
    """n samples, each at one noise level.

    latents, noise: float32 [n, C, h, w]; timesteps: int64 [n]; conditioning: n rows by name
    (`diffusion.conditioning`); outputs: the teacher's cached native outputs by view, float32
    [n, C, h, w];
    conditions: condition maps by kind, float32 [n, 3, H, W] in [0, 1].
    """

    keys: Sequence[str]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    conditions: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return dataclasses.replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            timesteps=self.timesteps.to(device),
            conditioning={n: rows.to(device) for n, rows in self.conditioning.items()},
            outputs={view: output.to(device) for view, output in self.outputs.items()},
            conditions={kind: maps.to(device) for kind, maps in self.conditions.items()},
        )

    def at(self, rows: Tensor) -> "Batch":
        """The samples with these numbers, int64 [m], in this order."""
        return dataclasses.replace(
            self,
            keys=[self.keys[row] for row in rows.tolist()],
            latents=self.latents[rows],
            noise=self.noise[rows],
            timesteps=self.timesteps[rows],
            conditioning={n: each[rows] for n, each in self.conditioning.items()},
            outputs={view: output[rows] for view, output in self.outputs.items()},
            conditions={kind: maps[rows] for kind, maps in self.conditions.items()},
        )


class Samples(Protocol):
    """A numbered set of (sample, noise level) items that a training reads."""

    def __len__(self) -> int: ...

    def batch(self, items: np.ndarray) -> Batch:
        """The items with these numbers, in this order."""
        ...
