"""Weights kept in bfloat16 while they train, rounded at random so that small steps are not lost.

In: trained parameters. Out: the same in bfloat16, and an AdamW for them. A step of less than half
of bfloat16's spacing (1/256 of the weight) would be lost by rounding to the nearest; rounded up or
down with the probability that makes its mean exact, it counts on average (Zamirai et al. 2020,
"Revisiting BFloat16 Training"; Gupta et al. 2015). Moments stay float32: their own steps are as
small. Bytes a weight: 12 instead of 16. Not here: which trainings may do so (`settings`).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_DROPPED_BITS = 16  # what float32 has more than bfloat16
_MASK = -(1 << _DROPPED_BITS)
_MOMENTS = ("exp_avg", "exp_avg_sq")  # as torch's own AdamW calls them


def is_narrowed(parameter: nn.Parameter) -> bool:
    """Whether a float32 parameter becomes bfloat16: matrices and kernels, all but 1% of weights.

    Biases and norms stay, whose kernels want the format of what they are given.
    """
    return parameter.ndim >= 2 and parameter.dtype == torch.float32


@torch.no_grad()
def narrow(parameters: Iterable[nn.Parameter]) -> None:
    """Make those that `is_narrowed` bfloat16, in place."""
    for parameter in filter(is_narrowed, parameters):
        parameter.data = parameter.data.bfloat16()


@torch.no_grad()
def widen(parameters: Iterable[nn.Parameter]) -> None:
    """Make those in bfloat16 float32 again, of the same values."""
    for parameter in parameters:
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()


def round_at_random(values: Tensor, generator: torch.Generator) -> Tensor:
    """bfloat16 of float32 `values`: one of the two neighbours, so that the mean is `values`.

    What bfloat16 holds exactly stays, and so does what is not finite.
    """
    bits = values.view(torch.int32)
    noise = torch.randint(
        1 << _DROPPED_BITS, bits.shape, dtype=torch.int32, device=bits.device, generator=generator
    )
    rounded = ((bits + noise) & _MASK).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).bfloat16()


class RandomlyRoundedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) in float32, whose bfloat16 weights are rounded at random.

    Noise is a function of the step and of the parameter's number alone: a resumed training rounds
    alike, and so do several processes.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would make the moments as narrow as the weights."""
        super().load_state_dict(state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, values in state_dict["state"].items():
            own = self.state[parameters[number]]
            for name in _MOMENTS:
                own[name] = values[name].to(own[name].device, torch.float32, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        """One update of every parameter that has a gradient."""
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, number)
                number += 1

    def _update(self, parameter: nn.Parameter, group: dict, number: int) -> None:
        state, gradient = self.state[parameter], parameter.grad.float()
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: torch.zeros_like(gradient) for name in _MOMENTS}
        state["step"] += 1
        count, (low, high) = int(state["step"]), group["betas"]
        mean, square = (state[name] for name in _MOMENTS)
        mean.lerp_(gradient, 1 - low)
        square.mul_(high).addcmul_(gradient, gradient, value=1 - high)
        scale = square.sqrt().div_((1 - high**count) ** 0.5).add_(group["eps"])
        values = parameter.float() * (1 - group["lr"] * group["weight_decay"])
        values.addcdiv_(mean, scale, value=-group["lr"] / (1 - low**count))
        if parameter.dtype == torch.bfloat16:
            generator = torch.Generator(parameter.device).manual_seed((count << 24) + number)
            values = round_at_random(values, generator)
        parameter.copy_(values)
