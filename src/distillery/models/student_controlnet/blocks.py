"""Encoder blocks of a student ControlNet: diffusers' layers with a modulation after each.

In: a down or middle block of `diffusers`, whose layers are taken over under the same parameter
names. Out: blocks that return the activation after every layer. A modulation follows every ResNet
and every transformer, none a downsampler. Also what stands between the blocks and the U-Net.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distillery.models.student_controlnet.modulation import build_modulation


class _ModulatedBlock(nn.Module):
    def __init__(self, block: nn.Module, modulation: str, time_channels: int) -> None:
        super().__init__()
        self.resnets = block.resnets
        self.attentions = getattr(block, "attentions", nn.ModuleList())
        self.gradient_checkpointing = False
        widths = [resnet.out_channels for resnet in self.resnets]
        modulations = [build_modulation(modulation, width, time_channels) for width in widths]
        self.resnet_modulations = nn.ModuleList(modulations)
        width = widths[-1]
        modulations = [build_modulation(modulation, width, time_channels) for _ in self.attentions]
        self.attention_modulations = nn.ModuleList(modulations)

    def _resnet(self, index: int, h: Tensor, temb: Tensor) -> Tensor:
        resnet = self.resnets[index]
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            h = self._gradient_checkpointing_func(resnet, h, temb)
        else:
            h = resnet(h, temb)
        return self.resnet_modulations[index](h, temb)

    def _attention(self, index: int, h: Tensor, temb: Tensor, text: dict[str, Any]) -> Tensor:
        h = self.attentions[index](h, return_dict=False, **text)[0]
        return self.attention_modulations[index](h, temb)


class StudentDownBlock(_ModulatedBlock):
    """ResNets, each with a transformer behind it or none at all, and a downsampler or none."""

    def __init__(self, block: nn.Module, modulation: str, time_channels: int) -> None:
        super().__init__(block, modulation, time_channels)
        self.downsamplers = block.downsamplers

    def forward(self, h: Tensor, temb: Tensor, text: dict[str, Any]) -> list[Tensor]:
        """Activations after each layer, then after the downsampler if there is one.

        `text`: the arguments of `Transformer2DModel` beside the features.
        """
        states = []
        for index in range(len(self.resnets)):
            h = self._resnet(index, h, temb)
            if self.attentions:
                h = self._attention(index, h, temb, text)
            states.append(h)
        if self.downsamplers is not None:
            states.append(self.downsamplers[0](h))
        return states


class StudentMidBlock(_ModulatedBlock):
    """A ResNet, and then pairs of a transformer and a ResNet, or none."""

    def forward(self, h: Tensor, temb: Tensor, text: dict[str, Any]) -> Tensor:
        """The activation at the end."""
        for index in range(len(self.resnets)):
            h = self._resnet(index, h, temb)
            if index < len(self.attentions):
                h = self._attention(index, h, temb, text)
        return h


def zero_projection(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution that gives zeros, until it is trained."""
    projection = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection


def scaled(residuals: list[Tensor], scale: float, guess_mode: bool) -> list[Tensor]:
    """Residuals times `scale`; in guess mode from a tenth of it, the first, to all of it, the mid.

    The factors of `ControlNetModel`, evenly spaced in the logarithm.
    """
    scales = [scale] * len(residuals)
    if guess_mode:
        scales = (torch.logspace(-1, 0, len(residuals)) * scale).tolist()
    return [residual * factor for residual, factor in zip(residuals, scales, strict=True)]
