"""What one training step is computed from; made by the teacher's cache, read by objectives."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from distillery.core.trees import mapped
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
    conditions: condition maps by kind, float32 [n, 3, H, W] in [0, 1], zeros where a record has
    none; has_map: which records have one, bool [n] by kind, empty where all of the data do; drawn:
    what an objective chose at random for each sample, by name.
    """

    keys: Sequence[str]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    has_map: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return mapped(self, lambda tensor: tensor.to(device))

    def at(self, rows: Tensor) -> "Batch":
        """The samples with these numbers, int64 [m], in this order."""
        keys = [self.keys[row] for row in rows.tolist()]
        return dataclasses.replace(mapped(self, lambda tensor: tensor[rows]), keys=keys)


class Samples(Protocol):
    """A numbered set of (sample, noise level) items that a training reads."""

    def __len__(self) -> int: ...

    def batch(self, items: np.ndarray) -> Batch:
        """The items with these numbers, in this order."""
        ...
