"""Loss weights over timesteps, and the weighted squared error they go into.

In: alpha_bar of the schedule and the names of a weighting and a space. Out: one weight per
timestep for squared errors in the model's native space. Weights are written once, for errors of x0
(Salimans & Ho 2022, 4), and carried over by |d x0|^2 = |d eps|^2 / SNR = |d v|^2 / (SNR + 1).
"""

from typing import Literal

import torch
from torch import Tensor

from distillery.diffusion.prediction import Space, snr

Weighting = Literal["constant", "truncated_snr", "min_snr", "snr_plus_one", "p2"]
SNR_FLOOR = 1e-3  # SD's own schedule ends at 4.7e-3; keeps 1 / SNR finite at zero terminal SNR


def timestep_weights(
    alpha_bar: Tensor, native: Space, *, space: Space, kind: Weighting, gamma: float
) -> Tensor:
    """Weights [num_train_timesteps], float32, all finite, of squared errors in `native` space.

    `space` is where the loss is meant. `constant` is weight 1 there; `min_snr` and `p2` scale what
    is 1 there:
    truncated_snr  max(SNR, 1) on x0                       (Salimans & Ho 2022)
    snr_plus_one   SNR + 1 on x0, constant in v            (Salimans & Ho 2022)
    min_snr        min(SNR, gamma) on x0                   (Hang et al. 2023)
    p2             SNR / (1 + SNR)^gamma on x0             (Choi et al. 2022, k = 1)
    For space v the last two take SNR + 1 for the SNR in front: with SNR alone they are 0 at zero
    terminal SNR, where sampling starts and only v can learn anything.
    """
    ratio = snr(alpha_bar).clamp(min=SNR_FLOOR)
    unit = {"eps": ratio, "v": ratio + 1, "x0": torch.ones_like(ratio)}
    meant = unit["v"] if space == "v" else ratio
    on_x0 = {
        "constant": unit[space],
        "truncated_snr": ratio.clamp(min=1),
        "snr_plus_one": ratio + 1,
        "min_snr": meant.clamp(max=gamma),
        "p2": meant / (1 + ratio) ** gamma,
    }[kind]
    return (on_x0 / unit[native]).to(torch.float32)


def weighted_mse(prediction: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Mean over samples of weight [n] times the mean squared error [n, ...], in float32."""
    error = (prediction.float() - wanted.float()).square().flatten(1).mean(1)
    return (weights * error).mean()
