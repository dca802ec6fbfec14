"""What a training minimises: objectives map (model, batch) to named loss terms.

In: a U-Net-like model and a `Batch`. Out: a dict of scalar terms whose sum is the loss, each with
its factor applied, so that logs show what dominates. No optimiser, no loop; a further kind of
training is a further function or class here with the same signature. One that makes random choices
for a batch makes them in a method `prepare(batch)`, which the loop calls while the batch is on the
CPU: what follows is then the same computation at every step, and can be recorded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distillery.diffusion.batch import Batch
from distillery.diffusion.denoise import denoise
from distillery.diffusion.losses import Weighting, timestep_weights, weighted_mse
from distillery.diffusion.prediction import NATIVE_SPACE, Space, add_noise, alpha_sigma, target
from distillery.diffusion.processes import mean_over_processes

Terms = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], Terms]
TeacherOutput = Callable[[Batch, Tensor], Tensor]


@dataclass(frozen=True)
class Diffusion:
    """A noise schedule: alpha_bar [T], the space of the model's output, weights [T] of errors."""

    alpha_bar: Tensor
    native: Space
    weights: Tensor
    _copies: dict[tuple, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def create(
        cls, alpha_bar: Tensor, prediction_type: str, *, space: str, kind: Weighting, gamma: float
    ) -> "Diffusion":
        """`prediction_type` as in diffusers; `space` `native` or one of eps, v, x0."""
        native = NATIVE_SPACE[prediction_type]
        meant: Space = native if space == "native" else space
        weights = timestep_weights(alpha_bar, native, space=meant, kind=kind, gamma=gamma)
        return cls(alpha_bar, native, weights)

    def noisy(self, batch: Batch) -> Tensor:
        """z_t of the batch [n, C, h, w]."""
        alpha, sigma = self._alpha_sigma(batch)
        return add_noise(batch.latents, batch.noise, alpha, sigma)

    def target(self, batch: Batch) -> Tensor:
        """What the data says the model should answer [n, C, h, w]."""
        alpha, sigma = self._alpha_sigma(batch)
        return target(batch.latents, batch.noise, alpha, sigma, self.native)

    def error(self, prediction: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        """Weighted mean squared error, a scalar."""
        weights = self._on("weights", prediction.device)[batch.timesteps]
        return weighted_mse(prediction, wanted, weights)

    def _alpha_sigma(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return alpha_sigma(self._on("alpha_bar", batch.timesteps.device), batch.timesteps)

    def _on(self, name: str, device: torch.device) -> Tensor:
        """A table on a device, copied there once: every copy waits for the device."""
        if (name, device) not in self._copies:
            self._copies[name, device] = getattr(self, name).to(device)
        return self._copies[name, device]


@dataclass(frozen=True)
class Denoise:
    """The plain diffusion loss against the data (Ho et al. 2020, eq. 14)."""

    diffusion: Diffusion

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        prediction = predict(model, self.diffusion.noisy(batch), batch)
        return {"diffusion": self.diffusion.error(prediction, self.diffusion.target(batch), batch)}


@dataclass(frozen=True)
class DistillOutput:
    """ELR-Diffusion's Stage I: w(t) |teacher(z_t, t, c) - student(z_t, t, c)|^2, no guidance.

    `teacher` gives its native output, from the cache or by asking it. `features` (online only)
    adds `lambda_feature` times the distance of the two models' block outputs.
    """

    diffusion: Diffusion
    teacher: TeacherOutput
    lambda_diffusion: float = 0.0
    lambda_feature: float = 0.0
    features: "FeatureDistance | None" = None

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        noisy = self.diffusion.noisy(batch)
        wanted = self.teacher(batch, noisy)
        prediction = predict(model, noisy, batch)
        terms = {"output": self.diffusion.error(prediction, wanted, batch)}
        if self.lambda_diffusion:
            error = self.diffusion.error(prediction, self.diffusion.target(batch), batch)
            terms["diffusion"] = self.lambda_diffusion * error
        if self.features is not None:
            terms["feature"] = self.lambda_feature * self.features.distance()
        return terms


def predict(model: nn.Module, noisy: Tensor, batch: Batch) -> Tensor:
    """The model's native output [n, C, h, w]."""
    return denoise(model, noisy, batch.timesteps, batch.conditioning)


def cached_output(view: str) -> TeacherOutput:
    """The teacher's output as the cache's `view` holds it."""
    return lambda batch, noisy: batch.outputs[view]


def online_output(unet: nn.Module) -> TeacherOutput:
    """The teacher's output computed on the spot by its frozen U-Net, in the U-Net's own dtype."""

    @torch.no_grad()
    def ask(batch: Batch, noisy: Tensor) -> Tensor:
        return denoise(unet, noisy.to(unet.dtype), batch.timesteps, batch.conditioning)

    return ask


class FeatureDistance:
    """Distance of the block outputs of two U-Nets, read off their last forward passes.

    Each level is divided by the teacher's energy there, and levels are averaged: raw feature
    distances differ by orders of magnitude and drown every other term (Kim et al. 2023, BK-SDM).
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        self._student, self._teacher = _Tap(student), _Tap(teacher)

    def distance(self) -> Tensor:
        """Mean over levels of |student - teacher|^2 / |teacher|^2, the energy of all processes."""
        pairs = zip(self._student.outputs(), self._teacher.outputs(), strict=True)
        ratios = [
            (s.float() - t.float()).square().mean()
            / mean_over_processes(t.float().square().mean()).clamp(min=1e-8)
            for s, t in pairs
        ]
        return torch.stack(ratios).mean()


class _Tap:
    def __init__(self, unet: nn.Module) -> None:
        self._blocks: Sequence[nn.Module] = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        self._last: dict[int, Tensor] = {}
        for index, block in enumerate(self._blocks):
            block.register_forward_hook(lambda m, args, out, index=index: self._keep(index, out))

    def _keep(self, index: int, output: Tensor | tuple) -> None:
        self._last[index] = output[0] if isinstance(output, tuple) else output

    def outputs(self) -> list[Tensor]:
        """Outputs of the last forward pass, in order; they are given once."""
        outputs, self._last = [self._last[i] for i in range(len(self._blocks))], {}
        return outputs
