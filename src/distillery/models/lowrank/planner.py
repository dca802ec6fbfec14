"""Ranks under a budget, from the spectra of the layers instead of one ratio for all.

In: layer shapes, what a rank costs in each layer (parameters or multiply-accumulates), the share of
a layer's energy in each of its components, a budget. Out: {layer: rank} as `ranks.plan_ranks` gives
it, and the predicted error of any such plan. Not here: the spectra, the decomposition itself.

Each layer's error is its discarded share of energy; a plan's predicted error is their sum. With
that, the best plan is separable: for a price of one unit of budget every layer takes the rank of
least error + price * cost, and the price is the one that spends the budget (Everett 1963).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.layers import LayerShape, is_factorable, layer_shapes
from distillery.models.lowrank.ranks import KEEP_DENSE, plan_ranks
from distillery.models.lowrank.spectra import discarded, output_spectra, weight_spectra

_BISECTIONS = 60


@dataclass(frozen=True)
class Cost:
    """Budget units of one layer: `per_rank` for each rank, `dense` as it is."""

    per_rank: int
    dense: int

    def at(self, rank: int | None) -> int:
        """Cost at a rank; None is dense."""
        return self.dense if rank is None else rank * self.per_rank


def parameter_costs(shapes: Mapping[str, LayerShape]) -> dict[str, Cost]:
    """Weight parameters."""
    return {n: Cost(s.num_low_rank(1), s.num_dense) for n, s in shapes.items()}


@torch.no_grad()
def mac_costs(model: nn.Module, *inputs, **named_inputs) -> dict[str, Cost]:
    """Multiply-accumulates of every Linear and Conv2d in one forward pass, on meta too.

    Both factors act at the output's positions. A layer called several times counts every call.
    """
    positions = dict.fromkeys(layer_shapes(model), 0)

    def hook_of(name: str):
        def count(layer: nn.Module, args: tuple, output: Tensor) -> None:
            channels = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
            positions[name] += output.numel() // channels

        return count

    layers = {name: m for name, m in model.named_modules() if is_factorable(m)}
    hooks = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        model(*inputs, **named_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    costs = parameter_costs(layer_shapes(model))
    return {n: Cost(positions[n] * c.per_rank, positions[n] * c.dense) for n, c in costs.items()}


def allocate(
    spectra: Mapping[str, np.ndarray], costs: Mapping[str, Cost], budget: float
) -> dict[str, int]:
    """Ranks whose summed discarded share of energy is least among plans that cost <= `budget`.

    Optimal on the convex hull of each layer's (cost, error) points; what is left of the budget then
    goes to single ranks by error per cost, so at most about one rank's cost stays unspent.
    Raises DistilleryError for a budget out of reach, naming the range.
    """
    curves = {name: _Curve.of(spectra[name], costs[name]) for name in spectra}
    lowest = sum(float(c.cost[0]) for c in curves.values())
    if budget < lowest:
        highest = sum(cost.dense for cost in costs.values())
        raise DistilleryError(
            f"budget of {budget:.0f} for {len(curves)} layers is out of reach: they need "
            f"{lowest:.0f} (every rank 1) to {highest} (all dense)"
        )
    low, high = 0.0, 1.0
    while sum(c.cost[c.best(high)] for c in curves.values()) > budget:
        high *= 8
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        fits = sum(c.cost[c.best(price)] for c in curves.values()) <= budget
        low, high = (low, price) if fits else (price, high)
    places = {name: curve.best(high) for name, curve in curves.items()}
    _spend_rest(curves, places, budget)
    return {n: place + 1 for n, place in places.items() if not curves[n].is_dense(place)}


@dataclass(frozen=True)
class _Curve:
    """Cost and error of a layer at rank 1, 2, ... while that is smaller, and dense at the end."""

    cost: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, spectrum: np.ndarray, cost: Cost) -> "_Curve":
        useful = min(len(spectrum), (cost.dense - 1) // max(cost.per_rank, 1))
        ranks = np.arange(1, useful + 1)
        costs = np.append(ranks * float(cost.per_rank), float(cost.dense))
        return cls(costs, np.append(discarded(spectrum)[1 : useful + 1], 0.0))

    def best(self, price: float) -> int:
        return int(np.argmin(self.error + price * self.cost))

    def is_dense(self, place: int) -> bool:
        return place == len(self.cost) - 1


def _spend_rest(curves: Mapping[str, _Curve], places: dict[str, int], budget: float) -> None:
    """Raise single ranks, the most error per cost first, while they fit."""
    left = budget - sum(curves[name].cost[place] for name, place in places.items())
    while True:
        gains = {}
        for name, place in places.items():
            curve = curves[name]
            if curve.is_dense(place) or curve.cost[place + 1] - curve.cost[place] > left:
                continue
            step = curve.cost[place + 1] - curve.cost[place]
            gains[name] = (curve.error[place] - curve.error[place + 1]) / max(step, 1e-9)
        if not gains or max(gains.values()) <= 0:
            return
        name = max(gains, key=gains.get)
        left -= curves[name].cost[places[name] + 1] - curves[name].cost[places[name]]
        places[name] += 1


def predicted_error(spectra: Mapping[str, np.ndarray], ranks: Mapping[str, int]) -> float:
    """Sum over layers of the discarded share of energy; layers not in `ranks` lose nothing."""
    return float(sum(discarded(spectra[name])[rank] for name, rank in ranks.items()))


def total_cost(costs: Mapping[str, Cost], ranks: Mapping[str, int]) -> int:
    """Cost of these layers, those not in `ranks` dense."""
    return sum(cost.at(ranks.get(name)) for name, cost in costs.items())


def uniform_ranks(
    shapes: Mapping[str, LayerShape],
    costs: Mapping[str, Cost],
    budget: float,
    *,
    keep_dense: Sequence[str] = KEEP_DENSE,
) -> dict[str, int]:
    """ELR's rule at the largest ratio whose cost stays within `budget`, in any unit of cost.

    Single ranks, dearest layers first, then take what is left, as `plan_ranks` does it.
    Raises DistilleryError if not even the smallest ratio does, or a layer pattern matches nothing.
    """

    def at(ratio: float) -> dict[str, int]:
        return plan_ranks(shapes, "ratio", ratio, keep_dense=keep_dense)

    if total_cost(costs, at(1e-9)) > budget:
        raise DistilleryError(
            f"budget of {budget:.4g} is out of reach: rank 1 everywhere costs "
            f"{total_cost(costs, at(1e-9)):.4g}; allow more, or keep fewer layers dense"
        )
    low, high = 1e-9, 1.0
    for _ in range(_BISECTIONS // 2):
        middle = (low + high) / 2
        low, high = (middle, high) if total_cost(costs, at(middle)) <= budget else (low, middle)
    ranks = at(high) if total_cost(costs, at(high)) <= budget else at(low)
    left = budget - total_cost(costs, ranks)
    for name in sorted(ranks, key=lambda n: (-costs[n].per_rank, n)):
        step = costs[name].per_rank
        if step <= left and (ranks[name] + 1) * step < costs[name].dense:
            ranks[name] += 1
            left -= step
    return ranks


def factorable(
    shapes: Mapping[str, LayerShape], keep_dense: Sequence[str] = KEEP_DENSE
) -> list[str]:
    """Names of the layers that may be decomposed: those that no `keep_dense` pattern matches."""
    return list(plan_ranks(shapes, "ratio", 1e-9, keep_dense=keep_dense))


def spectrum_ranks(
    model: nn.Module,
    *,
    target: float,
    other_params: int = 0,
    keep_dense: Sequence[str] = KEEP_DENSE,
    moments: Mapping[str, Tensor] | None = None,
) -> dict[str, int]:
    """Ranks by spectrum with which model + `other_params` stays within `target` parameters.

    The rank rule `spectrum`, with the arguments and result of `ranks.plan_ranks`; spectra are the
    weights', or with `moments` the outputs'. Raises DistilleryError for a model on meta or a
    target out of reach.
    """
    shapes = layer_shapes(model)
    names = factorable(shapes, keep_dense)
    if any(model.get_submodule(name).weight.is_meta for name in names):
        raise DistilleryError("rank rule spectrum needs the teacher's weights, not only its shapes")
    costs = {name: cost for name, cost in parameter_costs(shapes).items() if name in set(names)}
    num_all = other_params + sum(p.numel() for p in model.parameters())
    fixed = num_all - sum(cost.dense for cost in costs.values())
    spectra = weight_spectra(model, names)
    if moments is not None:
        spectra = output_spectra(model, {name: moments[name] for name in names})
    if target >= num_all:
        raise DistilleryError(f"target {target:.0f}: the model has only {num_all} parameters")
    return allocate(spectra, costs, math.floor(target) - fixed)
