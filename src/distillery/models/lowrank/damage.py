"""What a change of a U-Net does to its output, measured on batches of inputs.

In: a dense U-Net and batches of its arguments. Out: relative squared distances of its output: of
every layer at one rank, of every block replaced by its skip, and how nearly two add up. The U-Net
is as before afterwards. Measured once per block as in BK-SDM (Kim et al. 2023) and LAPTOP-Diff
(Zhang et al. 2024), on outputs instead of scores.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.lowrank.decompose import decompose
from distillery.models.lowrank.removed import removable_blocks, skip_of
from distillery.models.lowrank.spectra import discarded

_LEAST_SHARE = 0.01  # of energy: below it a layer's damage is rounding


class Damage:
    """Distances of a U-Net's present output to what it was; `batches` are kept in memory."""

    @torch.no_grad()
    def __init__(self, unet: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> None:
        self.unet, self.batches = unet.eval(), list(batches)
        if not self.batches:
            raise DistilleryError("no inputs to measure on; give at least one batch")
        self._before = [self.unet(**batch).sample for batch in self.batches]
        self._energy = sum(float(out.double().square().sum()) for out in self._before)

    @torch.no_grad()
    def now(self) -> float:
        """|output - output before|^2 / |output before|^2 over all batches."""
        lost = 0.0
        for batch, before in zip(self.batches, self._before, strict=True):
            lost += float((self.unet(**batch).sample - before).double().square().sum())
        return lost / self._energy if self._energy else 0.0

    def of(self, *changes: str | tuple[str, Tensor]) -> float:
        """Distance with blocks (names) removed and layers (name, weight) given other weights."""
        with ExitStack() as stack:
            for change in changes:
                one = isinstance(change, str)
                stack.enter_context(self._removed(change) if one else self._changed(*change))
            return self.now()

    @contextmanager
    def _removed(self, name: str) -> Iterator[None]:
        block = self.unet.get_submodule(name)
        self.unet.set_submodule(name, skip_of(block))
        try:
            yield
        finally:
            self.unet.set_submodule(name, block)

    @contextmanager
    def _changed(self, name: str, weight: Tensor) -> Iterator[None]:
        parameter = self.unet.get_submodule(name).weight
        kept = parameter.data
        parameter.data = weight.to(kept)
        try:
            yield
        finally:
            parameter.data = kept


def removal_errors(damage: Damage) -> dict[str, float]:
    """Of every removable block; one pass of the batches for each."""
    return {name: damage.of(name) for name in removable_blocks(damage.unet)}


def approximation(
    unet: nn.Module, name: str, rank: int, moments: Mapping[str, Tensor] | None
) -> Tensor:
    """A layer's weight at a rank, data-aware where there are moments."""
    weight = unet.get_submodule(name).weight
    moment = None if moments is None else moments[name]
    init = "svd" if moments is None else "data_aware"
    factors = decompose(weight, rank, init, moment=moment)
    return (factors.a @ factors.b).reshape(weight.shape)


def sensitivities(
    damage: Damage,
    spectra: Mapping[str, np.ndarray],
    ranks: Mapping[str, Sequence[int]],
    moments: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Output distance for each share of a layer's energy that is discarded.

    Measured at one of the layer's candidate `ranks`, the largest that discards a hundredth; one
    decomposition and one pass of the batches for each layer.
    """
    measured = {}
    for name, candidates in ranks.items():
        lost = discarded(spectra[name])
        rank = probe_rank(lost, candidates)
        if lost[rank] <= 0:
            measured[name] = 0.0
            continue
        weight = approximation(damage.unet, name, rank, moments)
        measured[name] = damage.of((name, weight)) / float(lost[rank])
    return measured


def probe_rank(lost: np.ndarray, candidates: Sequence[int]) -> int:
    """The largest candidate that discards a hundredth of the energy, or the smallest of all."""
    return max((r for r in candidates if lost[r] >= _LEAST_SHARE), default=min(candidates))


def additivity(
    damage: Damage, changes: Mapping[str, str | tuple[str, Tensor]], num_pairs: int, seed: int = 0
) -> dict[str, float | int]:
    """Distance of two changes at once over the sum of both alone, for random pairs.

    {"num_pairs", "median", "lowest", "highest"}; 1 is additive. Pairs of changes that alone do
    nothing are left out.
    """
    draw, names = random.Random(seed), sorted(changes)
    ratios = []
    for _ in range(num_pairs if len(names) > 1 else 0):
        first, second = (changes[name] for name in draw.sample(names, 2))
        if _inside(first, second):
            continue
        alone = damage.of(first) + damage.of(second)
        if alone > 0:
            ratios.append(damage.of(first, second) / alone)
    values = np.quantile(ratios, (0, 0.5, 1)).tolist() if ratios else [1.0] * 3
    low, median, high = (round(value, 4) for value in values)
    return {"num_pairs": len(ratios), "median": median, "lowest": low, "highest": high}


def _inside(first: str | tuple[str, Tensor], second: str | tuple[str, Tensor]) -> bool:
    """Whether one change is a layer of the other's block, which has no layer then."""
    names = [change if isinstance(change, str) else change[0] for change in (first, second)]
    return any(a.startswith(f"{b}.") for a, b in (names, names[::-1]))
