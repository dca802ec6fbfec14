"""What turns condition maps into an adapter's control: the extractor and feature denormalisation.

In: stacked condition maps. Out: one feature map per level of the U-Net, and norms that are scaled
and shifted by them. Source: Uni-ControlNet (Zhao et al. 2023), section 3.2. Not here: the encoder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from distillery.models.layers import LowRankLayer
from distillery.models.normalise import normalise_convolutions

Norm = Literal["frozen", "official"]
# Of Stable Diffusion, whose levels have 320, 640, 1280 and 1280 channels.
STEM_CHANNELS = (32, 64, 64, 128, 128)
STEM_STRIDES = (1, 2, 1, 2, 1)
LEVEL_SHARES = (0.6, 0.4, 0.3, 0.4)
SD_FIRST_CHANNELS = 320


def level_channels(block_out_channels: Sequence[int]) -> list[int]:
    """Extractor channels per level: shares of the level's own, in steps of 8, at least 8.

    192, 256, 384, 512 for Stable Diffusion; levels beyond the fourth take its share.
    """
    shares = [*LEVEL_SHARES, *[LEVEL_SHARES[-1]] * len(block_out_channels)]
    pairs = zip(block_out_channels, shares, strict=False)
    return [_step_of_8(channels * share) for channels, share in pairs]


def stem_channels(block_out_channels: Sequence[int]) -> list[int]:
    """Stem channels: Stable Diffusion's, shrunk with the U-Net's first level to half at most."""
    scale = min(1.0, block_out_channels[0] / SD_FIRST_CHANNELS)
    return [max(channels // 2, _step_of_8(channels * scale)) for channels in STEM_CHANNELS]


def _step_of_8(value: float) -> int:
    return max(8, 8 * round(value / 8))


class ConditionExtractor(nn.Module):
    """h_r: condition maps to one feature map per level, through a zero convolution each.

    [n, in_channels, 8 h, 8 w] in [0, 1] -> [n, c_0, h, w], [n, c_1, h/2, w/2], ...: a stem down to
    a quarter, then one convolution of stride 2 per level, SiLU after each.
    """

    def __init__(self, in_channels: int, block_out_channels: Sequence[int]) -> None:
        super().__init__()
        stem = stem_channels(block_out_channels)
        self.channels = level_channels(block_out_channels)
        sizes = zip([in_channels, *stem], stem, STEM_STRIDES, strict=False)
        self.stem = nn.ModuleList(nn.Conv2d(a, b, 3, s, padding=1) for a, b, s in sizes)
        pairs = zip([stem[-1], *self.channels], self.channels, strict=False)
        self.levels = nn.ModuleList(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in pairs)
        self.zero_convs = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in self.channels)
        self._zero()

    def _zero(self) -> None:
        for conv in self.zero_convs:
            zero_output(conv)

    def reset_parameters(self) -> None:
        """Default random values, and zero where the output starts at zero."""
        for conv in (*self.stem, *self.levels, *self.zero_convs):
            conv.reset_parameters()
        self._zero()

    @torch.no_grad()
    def normalise(self, conditions: Tensor) -> None:
        """Give every convolution before the zero ones outputs of unit variance on these maps.

        Otherwise a map fades by about 0.3 a layer, and control takes several times as many steps.
        """
        normalise_convolutions([*self.stem, *self.levels], conditions)

    def forward(self, conditions: Tensor) -> list[Tensor]:
        x = conditions
        for conv in self.stem:
            x = functional.silu(conv(x))
        outputs = []
        for conv, zero in zip(self.levels, self.zero_convs, strict=True):
            x = functional.silu(conv(x))
            outputs.append(zero(x))
        return outputs


class FeatureDenorm(nn.Module):
    """FDN(Z, c) = norm(Z) (1 + phi_gamma(f)) + phi_beta(f), f = zero(h_r(c)) given by `given`.

    `frozen`: the pretrained GroupNorm with its affine, which is not trained, and phi with zero
    biases, so that zero features change nothing. `official` (public Uni-ControlNet): a GroupNorm
    without affine and phi's default random biases; not the identity at the start.
    phi itself starts random: behind a zero convolution, a zero phi would stop every gradient.
    """

    def __init__(self, norm: nn.GroupNorm, feature_channels: int, kind: Norm) -> None:
        super().__init__()
        self.kind, channels = kind, norm.num_channels
        if kind == "official":
            norm = nn.GroupNorm(norm.num_groups, channels, norm.eps, affine=False)
        self.norm = norm.requires_grad_(False)
        self.phi_gamma = nn.Conv2d(feature_channels, channels, 3, padding=1)
        self.phi_beta = nn.Conv2d(feature_channels, channels, 3, padding=1)
        self._features: Tensor | None = None
        self._zero_biases()

    def _zero_biases(self) -> None:
        if self.kind == "frozen":
            nn.init.zeros_(self.phi_gamma.bias)
            nn.init.zeros_(self.phi_beta.bias)

    def reset_parameters(self) -> None:
        """Random values of phi that keep its input's variance; the norm is left alone."""
        for phi in (self.phi_gamma, self.phi_beta):
            phi.reset_parameters()
            nn.init.kaiming_normal_(phi.weight, nonlinearity="linear")
        self._zero_biases()

    @contextmanager
    def given(self, features: Tensor) -> Iterator[None]:
        """Within this context, `forward` is denormalised by `features` [n, c, h, w]."""
        self._features = features
        try:
            yield
        finally:
            self._features = None

    def forward(self, x: Tensor) -> Tensor:
        gamma, beta = self.phi_gamma(self._features), self.phi_beta(self._features)
        return self.norm(x) * (1 + gamma) + beta


def inject(resnet: nn.Module, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
    """A ResNet block whose two norms are `FeatureDenorm`s, with the features of its level.

    One call from start to end, so that gradient checkpointing may repeat it in the backward pass.
    """
    with resnet.norm1.given(features), resnet.norm2.given(features):
        return resnet(x, time)


@torch.no_grad()
def zero_output(layer: nn.Module) -> None:
    """Make a convolution answer zero; of a low-rank one only the last factor is zeroed."""
    last = layer.expand if isinstance(layer, LowRankLayer) else layer
    for parameter in last.parameters():
        parameter.zero_()
