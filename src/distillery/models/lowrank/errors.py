"""What each form of each layer, and each removed block, is expected to do to a U-Net's output.

In: layer shapes, or a teacher's weights, or the teacher with moments and batches of its inputs.
Out: one error curve per layer, and the error of every block's removal where it was measured. The
more is known, the better: a removal is never guessed, so without inputs no block may go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.layers import LayerShape
from distillery.models.lowrank.damage import (
    Damage,
    additivity,
    approximation,
    probe_rank,
    removal_errors,
    sensitivities,
)
from distillery.models.lowrank.spectra import discarded, output_spectra, weight_spectra

NUM_PAIRS = 12
_SAYS = {
    "assumed": "no weights: (1 - rank / full rank)^2 of every layer alike",
    "weights": "sum over layers of the share of the weight's energy that is discarded",
    "outputs": "relative squared distance of the U-Net's output, measured layer by layer and block "
    "by block on cached training inputs, and added up",
}


@dataclass(frozen=True)
class Errors:
    """`layers`: error at rank 0, 1, ..., full; `removal`: of blocks, empty if not measured."""

    basis: str
    layers: Mapping[str, np.ndarray]
    removal: Mapping[str, float] = field(default_factory=dict)
    additivity: Mapping[str, float] | None = None

    @property
    def meaning(self) -> str:
        """What an error is, in words."""
        return _SAYS[self.basis]

    def of(self, ranks: Mapping[str, int], removed: Sequence[str] = ()) -> float | None:
        """The summed error of any plan; None if it removes blocks whose removal was not measured.

        Layers without a curve are never changed and count nothing.
        """
        if any(name not in self.removal for name in removed):
            return None
        layers = sum(float(self.layers[n][r]) for n, r in sorted(ranks.items()) if n in self.layers)
        return layers + sum(self.removal[name] for name in sorted(removed))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; every float survives a file."""
        layers = {name: curve.tolist() for name, curve in self.layers.items()}
        removal, additivity = dict(self.removal), self.additivity
        return {
            "basis": self.basis, "layers": layers, "removal": removal, "additivity": additivity
        }  # fmt: skip

    @classmethod
    def of_json(cls, plain: Mapping[str, Any]) -> "Errors":
        """What `as_json` gave."""
        layers = {name: np.array(curve) for name, curve in plain["layers"].items()}
        return cls(plain["basis"], layers, plain["removal"], plain["additivity"])


def assumed_errors(shapes: Mapping[str, LayerShape], names: Sequence[str]) -> Errors:
    """The same curve for every layer, where there are no weights to look at."""
    return Errors("assumed", {n: _assumed(shapes[n].full_rank) for n in names})


def _assumed(full_rank: int) -> np.ndarray:
    return (1 - np.arange(full_rank + 1) / full_rank) ** 2


def weight_errors(unet: nn.Module, names: Sequence[str]) -> Errors:
    """By the spectra of the weights; raises DistilleryError for a U-Net on the meta device."""
    _check_weights(unet, names)
    return Errors("weights", {n: discarded(s) for n, s in weight_spectra(unet, names).items()})


def measured_errors(
    unet: nn.Module,
    ranks: Mapping[str, Sequence[int]],
    batches: Sequence[Mapping[str, Tensor]],
    layer_batches: Sequence[Mapping[str, Tensor]],
    moments: Mapping[str, Tensor],
) -> Errors:
    """By the U-Net's output, of removals on `batches`; `ranks` are the candidates of each layer.

    A layer's curve is the discarded share of its outputs' energy, scaled by what one rank does to
    the output of the U-Net on `layer_batches`, on which additivity is checked too. One pass for
    each layer and each block, one decomposition for each layer: half a minute for the scenes
    teacher; Stable Diffusion takes about as long as two decompositions.
    """
    names = list(ranks)
    _check_weights(unet, names)
    spectra = output_spectra(unet, {name: moments[name] for name in names})
    damage = Damage(unet, layer_batches)
    scales = sensitivities(damage, spectra, ranks, moments)
    removal = removal_errors(Damage(unet, batches))
    changes: dict[str, str | tuple[str, Tensor]] = {name: name for name in removal}
    changes |= _probes(unet, spectra, ranks, moments)
    return Errors(
        "outputs",
        {name: scales[name] * discarded(spectra[name]) for name in names},
        removal,
        additivity(damage, changes, NUM_PAIRS),
    )


def _probes(unet, spectra, ranks, moments) -> dict[str, tuple[str, Tensor]]:
    """As many layers as `additivity` may need, spread over the U-Net, at their probed ranks."""
    chosen = sorted(ranks)[:: max(1, len(ranks) // NUM_PAIRS)]
    with torch.no_grad():
        return {
            n: (
                n,
                approximation(unet, n, probe_rank(discarded(spectra[n]), ranks[n]), moments),
            )
            for n in chosen
        }


def _check_weights(unet: nn.Module, names: Sequence[str]) -> None:
    if any(unet.get_submodule(name).weight.is_meta for name in names):
        raise DistilleryError("the plan needs the teacher's weights, not only its shapes")
