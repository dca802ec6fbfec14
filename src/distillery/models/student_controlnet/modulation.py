"""Modulations that give a shallow student back some scaling power, each the identity at first.

In: features (n, C, h, w) and the time embedding (n, temb). Out: features of the same shape. A
student has one after every ResNet and every transformer block.
"""

import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError


class FiLM(nn.Module):
    """`h * (1 + g(temb)) + b(temb)`: per channel, one zero Linear(temb, 2C) after a SiLU.

    Perez et al. 2018 (arXiv 1709.07871).
    """

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_channels, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        gain, offset = self.linear(nn.functional.silu(temb))[:, :, None, None].chunk(2, dim=1)
        return h * (1 + gain) + offset


class StaticModulation(nn.Module):
    """`h * (1 + g) + b` with one g and b per channel, the same at every timestep."""

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        return h * (1 + self.gain[:, None, None]) + self.offset[:, None, None]


class SqueezeExcitation(nn.Module):
    """`h * 2 sigmoid(W2 relu(W1 mean(h)))`: gains of the features themselves, W2 zero at first.

    Hu et al. 2018 (arXiv 1709.01507), reduction 16; doubled, so that it begins at 1.
    """

    REDUCTION = 16

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        inner = max(channels // self.REDUCTION, 4)
        self.squeeze = nn.Linear(channels, inner)
        self.excite = nn.Linear(inner, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        gain = self.excite(nn.functional.relu(self.squeeze(h.mean(dim=(2, 3)))))
        return h * (2 * gain.sigmoid()[:, :, None, None])


class NoModulation(nn.Module):
    """Features as they are."""

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        return h


MODULATIONS: dict[str, type[nn.Module]] = {
    "none": NoModulation,
    "film": FiLM,
    "static": StaticModulation,
    "se": SqueezeExcitation,
}


def build_modulation(kind: str, channels: int, time_channels: int) -> nn.Module:
    """A modulation of `channels` features by a time embedding of `time_channels`.

    Raises DistilleryError for a kind that is not in `MODULATIONS`.
    """
    if kind not in MODULATIONS:
        raise DistilleryError(
            f"modulation: {kind!r} is unknown; use one of {', '.join(MODULATIONS)}"
        )
    return MODULATIONS[kind](channels, time_channels)
