"""One batch of random inputs for an architecture, and what may be evaluated with it.

In: modules on any device, sizes. Out: a `Workload`, and evaluations of it: a U-Net, a ControlNet,
both, with guidance or without. What is built here is run and timed elsewhere (`cost`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.denoise import control_residuals, denoise

HINT_SCALE = 8  # pixels of a condition map per latent pixel, as in all ControlNets


@dataclass(frozen=True)
class Workload:
    """One batch of random latents, timesteps and text for an architecture."""

    sample: Tensor
    timestep: Tensor
    encoder_hidden_states: Tensor

    @classmethod
    def of(
        cls,
        unet: UNet2DConditionModel,
        batch_size: int,
        num_tokens: int,
        *,
        side: int | None = None,
        device: torch.device | None = None,
    ) -> "Workload":
        """Inputs for `unet`; `side` of the latents and `device` are the model's own if None."""
        config, device = unet.config, device or unet.device
        side = side or config.sample_size
        if device.type == "meta":
            make = torch.empty
        else:
            generator = torch.Generator().manual_seed(0)

            def make(*shape: int) -> Tensor:
                return torch.randn(*shape, generator=generator)

        return cls(
            make(batch_size, config.in_channels, side, side).to(device, unet.dtype),
            torch.full((batch_size,), 500, device=device),
            make(batch_size, num_tokens, config.cross_attention_dim).to(device, unet.dtype),
        )

    def run(self, unet: UNet2DConditionModel, control: Sequence[Tensor] | None = None) -> Tensor:
        """One evaluation; `control` are a ControlNet's residuals."""
        told = {TEXT: self.encoder_hidden_states}
        return denoise(unet, self.sample, self.timestep, told, control)

    def control(self, controlnet: ControlNetModel) -> list[Tensor]:
        """A ControlNet's residuals for a grey map, the mid block's last."""
        config, sample = controlnet.config, self.sample
        pixels = sample.shape[-1] * HINT_SCALE
        hint = torch.full(
            (len(sample), config.conditioning_channels, pixels, pixels), 0.5,
            device=sample.device, dtype=sample.dtype,
        )  # fmt: skip
        told = {TEXT: self.encoder_hidden_states}
        return control_residuals(controlnet, sample, self.timestep, told, hint)

    def twice(self) -> "Workload":
        """Both halves of classifier-free guidance in one batch."""
        return Workload(*(torch.cat([part, part]) for part in vars(self).values()))


Run = Callable[[Workload], Tensor]


def unet_alone(unet: UNet2DConditionModel) -> Run:
    """One evaluation of a U-Net."""
    return lambda work: work.run(unet)


def controlnet_alone(controlnet: ControlNetModel) -> Run:
    """A ControlNet's own evaluation, without the U-Net."""
    return lambda work: work.control(controlnet)[-1]


def with_control(unet: UNet2DConditionModel, controlnet: ControlNetModel) -> Run:
    """A ControlNet, and the U-Net with its residuals."""
    return lambda work: work.run(unet, work.control(controlnet))


def batched(run: Run) -> Run:
    """Classifier-free guidance with both halves in one batch."""
    return lambda work: run(work.twice())


def two_calls(run: Run) -> Run:
    """Classifier-free guidance with one half after the other."""

    def both(work: Workload) -> Tensor:
        run(work)
        return run(work)

    return both


def text_encoding(encoder: CLIPTextModel) -> Run:
    """One prompt per image of the batch."""

    def encode(work: Workload) -> Tensor:
        shape, device = work.encoder_hidden_states.shape[:2], work.sample.device
        return encoder(torch.zeros(shape, dtype=torch.long, device=device))[0]

    return encode


def decoding(vae: AutoencoderKL) -> Run:
    """The VAE's images of the latents."""
    return lambda work: vae.decode(work.sample).sample


@dataclass(frozen=True)
class Profiled:
    """`parts` as in `counts.count_parameters`, as they train; `run` evaluates a batch.

    `trained` may be empty. `evaluated`: what `run` goes through, and `train`: what a training step
    runs, where those differ: a fused LoRA, a ControlNet without its U-Net.
    """

    unet: UNet2DConditionModel
    parts: Mapping[str, nn.Module]
    run: Run
    trained: list[nn.Parameter] = field(default_factory=list)
    per: str = "U-Net evaluation"
    evaluated: Mapping[str, nn.Module] | None = None
    train: Run | None = None
