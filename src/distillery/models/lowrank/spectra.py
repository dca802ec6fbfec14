"""How a layer's energy spreads over its components: what a low rank discards.

In: a model, and the moments of its layers' inputs where outputs count. Out: by layer the energy of
each component, largest first. Not here: the choice of ranks (`planner`), the factors (`decompose`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from distillery.models.lowrank.decompose import singular_values, truncated_svd


def discarded(spectrum: np.ndarray) -> np.ndarray:
    """Share of energy lost at rank 0, 1, ..., full."""
    total = float(spectrum.sum())
    kept = np.concatenate([[0.0], np.cumsum(spectrum)])
    return np.clip(1 - kept / total, 0, 1) if total else np.zeros(len(kept))


def weight_spectra(model: nn.Module, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Squared singular values of each weight, largest first: what plain SVD discards.

    A minute and a half on one core for Stable Diffusion 2.1.
    """
    layers = dict(model.named_modules())
    return {n: singular_values(layers[n].weight).square().cpu().numpy() for n in names}


def output_spectra(model: nn.Module, moments: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Energy of each principal component of each layer's outputs, largest first.

    `moments` are those of `moments.collect_second_moments`. The tail from r on is the squared
    output error of the data-aware rank r (`decompose.output_basis`, without its ridge).
    """
    layers = dict(model.named_modules())
    return {name: _output_spectrum(layers[name].weight, m) for name, m in moments.items()}


def _output_spectrum(weight: Tensor, moment: Tensor) -> np.ndarray:
    matrix = weight.detach().flatten(1).double()
    moment = moment.to(matrix)
    if len(moment) != matrix.shape[1]:  # the moment of outputs, W M W^T
        return torch.linalg.eigvalsh(moment).flip(0).clamp(min=0).cpu().numpy()
    values, vectors = torch.linalg.eigh(moment)
    rooted = matrix @ (vectors * values.clamp(min=0).sqrt())
    return truncated_svd(rooted, min(rooted.shape))[1].square().cpu().numpy()
