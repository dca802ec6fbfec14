"""What a student ControlNet's teacher says of a batch: its residuals and the U-Net's output.

In: a batch with condition maps, its noisy latents. Out: the residuals of a ControlNet as one list,
down blocks first, mid block last, and the frozen U-Net's output with them. The teacher's are
computed on the spot or read: its output from the cache's view `control_<kind>`, its residuals from
where the caller keeps them. Not here: losses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from distillery.diffusion.batch import Batch
from distillery.diffusion.denoise import control_residuals, denoise

Residuals = Callable[[Batch, Tensor], list[Tensor]]


def batch_residuals(controlnet: nn.Module, noisy: Tensor, batch: Batch, kind: str) -> list[Tensor]:
    """What a ControlNet adds to the U-Net for the batch's maps of `kind`, each [n, C, h, w]."""
    hint = batch.conditions[kind]
    return control_residuals(controlnet, noisy, batch.timesteps, batch.conditioning, hint)


def num_residuals(unet: UNet2DConditionModel) -> int:
    """How many residuals the U-Net takes: its input's, one per layer and downsampler, the mid's."""
    layers = [len(b.resnets) + len(b.downsamplers or ()) for b in unet.down_blocks]
    return sum(layers) + 2


def controlled_output(
    unet: UNet2DConditionModel, noisy: Tensor, batch: Batch, residuals: Sequence[Tensor]
) -> Tensor:
    """The U-Net's native output [n, C, h, w] with these residuals, in the U-Net's own dtype."""
    return denoise(unet, noisy.to(unet.dtype), batch.timesteps, batch.conditioning, residuals)


def online_residuals(controlnet: ControlNetModel, kind: str) -> Residuals:
    """The residuals that the frozen teacher ControlNet gives, computed on the spot."""

    @torch.no_grad()
    def ask(batch: Batch, noisy: Tensor) -> list[Tensor]:
        return batch_residuals(controlnet, noisy.to(controlnet.dtype), batch, kind)

    return ask


@dataclass(frozen=True)
class ControlTeacher:
    """`residuals` None: nobody asks for them. `view` None: outputs are computed from residuals."""

    unet: UNet2DConditionModel
    residuals: Residuals | None
    view: str | None

    @torch.no_grad()
    def output(
        self, batch: Batch, noisy: Tensor, residuals: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The U-Net's output under the teacher's control; known `residuals` save asking again."""
        if self.view is not None:
            return batch.outputs[self.view]
        known = self.residuals(batch, noisy) if residuals is None else residuals
        return controlled_output(self.unet, noisy, batch, known)
