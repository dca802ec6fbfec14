"""The three ways a diffusion model can say the same thing: eps, v and x0.

In: latents, noise or predictions and the schedule's alpha_bar. Out: noisy latents and conversions.
All follow Salimans & Ho 2022, "Progressive Distillation", 4 and appendix D, with
z_t = alpha x + sigma eps, alpha^2 = alpha_bar, sigma^2 = 1 - alpha_bar and v = alpha eps - sigma x.
Not here: loss weights (`losses`).
"""

from typing import Literal

import torch
from torch import Tensor

Space = Literal["eps", "v", "x0"]
NATIVE_SPACE: dict[str, Space] = {"epsilon": "eps", "v_prediction": "v"}


def alpha_sigma(alpha_bar: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma [n, 1, 1, 1] at timesteps [n], from alpha_bar [num_train_timesteps]."""
    picked = alpha_bar.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    return picked.sqrt(), (1 - picked).sqrt()


def add_noise(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """z_t = alpha x + sigma eps."""
    return alpha * x0 + sigma * noise


def target(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, space: Space) -> Tensor:
    """What a perfect model says in `space`: eps, alpha eps - sigma x, or x."""
    if space == "eps":
        return noise
    return alpha * noise - sigma * x0 if space == "v" else x0


def convert(
    prediction: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, source: Space, to: Space
) -> Tensor:
    """A prediction given in `source` said in `to`.

    From eps where alpha = 0 nothing can be known of x0 or v: the result there is not finite.
    """
    if source == to:
        return prediction
    if source == "eps":
        x0, eps = (z - sigma * prediction) / alpha, prediction
    elif source == "v":
        x0, eps = alpha * z - sigma * prediction, sigma * z + alpha * prediction
    else:
        x0, eps = prediction, (z - alpha * prediction) / sigma
    return {"eps": eps, "v": alpha * eps - sigma * x0, "x0": x0}[to]


def snr(alpha_bar: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2 in float64; 0 at zero terminal SNR."""
    alpha_bar = alpha_bar.to(torch.float64)
    return alpha_bar / (1 - alpha_bar)
