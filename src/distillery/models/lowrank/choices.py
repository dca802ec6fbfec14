"""What a plan chooses from: forms of layers, blocks that may go, and budgets to keep.

In: for every layer its candidate forms, each with an error and a cost in every budget (seconds,
parameters, multiply-accumulates); for every removable block the error of its removal and what it
costs beyond its layers. Out: the best choice at given prices, its cost, the plan that it is. The
prices are `budgets`' business. Errors and costs come from elsewhere; nothing is measured here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distillery.core.errors import DistilleryError

SLACK = 1e-12  # of a target: rounding in sums


@dataclass(frozen=True)
class Layer:
    """Candidate forms: `ranks` (None is dense), `error` [forms], `costs` [forms, budgets]."""

    ranks: tuple[int | None, ...]
    error: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True)
class Block:
    """A block that may go: its layers that go with it, the error then, its costs beside them."""

    layers: tuple[str, ...]
    error: float
    costs: np.ndarray


@dataclass(frozen=True)
class Budget:
    """A limit on one cost: `fixed` is what no choice changes; `say` names amounts to the user."""

    name: str
    target: float
    fixed: float
    say: Callable[[float], str] = "{:.6g}".format


@dataclass(frozen=True)
class Plan:
    """Ranks of factorised layers, removed blocks, the summed error, and costs by budget."""

    ranks: dict[str, int]
    removed: tuple[str, ...]
    error: float
    costs: dict[str, float]


@dataclass
class State:
    """The place of every layer's form among its candidates, and the blocks that are gone."""

    places: dict[str, int]
    removed: set[str]


@dataclass(frozen=True)
class Problem:
    """Layers and blocks sorted, costs as shares of their targets."""

    layers: dict[str, Layer]
    blocks: dict[str, Block]
    budgets: Sequence[Budget]
    owner: dict[str, str]
    fixed: np.ndarray

    @classmethod
    def of(
        cls,
        layers: Mapping[str, Layer],
        blocks: Mapping[str, Block],
        budgets: Sequence[Budget],
    ) -> "Problem":
        """Raises DistilleryError for a target that is not above 0."""
        targets = np.array([budget.target for budget in budgets], dtype=float)
        for budget in budgets:
            if not budget.target > 0:
                raise DistilleryError(f"{budget.name}: the target must be above 0")
        sorted_layers = {name: _sorted(layers[name], targets) for name in sorted(layers)}
        sorted_blocks = {
            name: Block(block.layers, block.error, np.asarray(block.costs, dtype=float) / targets)
            for name, block in sorted(blocks.items())
        }
        owner = {layer: name for name, block in sorted_blocks.items() for layer in block.layers}
        fixed = np.array([budget.fixed for budget in budgets], dtype=float) / targets
        return cls(sorted_layers, sorted_blocks, budgets, owner, fixed)

    def at(self, prices: np.ndarray) -> State:
        """The best form of every layer and block at these prices."""
        places, worth = {}, {}
        for name, layer in self.layers.items():
            total = layer.error + layer.costs @ prices
            places[name] = int(np.argmin(total))
            worth[name] = float(total[places[name]])
        removed = {
            name
            for name, block in self.blocks.items()
            if block.error < sum(worth[n] for n in block.layers) + float(block.costs @ prices)
        }
        return State(places, removed)

    def cost(self, state: State) -> np.ndarray:
        """Shares of the targets [budgets]."""
        total = self.fixed.copy()
        for name, place in state.places.items():
            if self.owner.get(name) not in state.removed:
                total += self.layers[name].costs[place]
        for name, block in self.blocks.items():
            if name not in state.removed:
                total += block.costs
        return total

    def fits(self, state: State) -> np.ndarray:
        """Which budgets are kept [budgets]."""
        return self.cost(state) <= 1 + SLACK

    def check_reach(self) -> None:
        """Refuse a target below what the cheapest forms cost; say the range."""
        for index, budget in enumerate(self.budgets):
            lowest, highest = self._range(index)
            if lowest > 1 + SLACK:
                raise DistilleryError(
                    f"{budget.name} {budget.say(budget.target)} is out of reach: this U-Net allows "
                    f"{budget.say(lowest * budget.target)} (every layer in its cheapest form"
                    f"{', every block that may go removed' if self.blocks else ''}) to "
                    f"{budget.say(highest * budget.target)} (all dense)"
                )

    def _range(self, index: int) -> tuple[float, float]:
        cheapest = {n: float(layer.costs[:, index].min()) for n, layer in self.layers.items()}
        dearest = {n: float(layer.costs[0, index]) for n, layer in self.layers.items()}
        low = high = float(self.fixed[index])
        for block in self.blocks.values():
            kept = block.costs[index] + sum(cheapest.pop(n) for n in block.layers)
            low += min(0.0, kept)
            high += block.costs[index] + sum(dearest.pop(n) for n in block.layers)
        return low + sum(cheapest.values()), high + sum(dearest.values())

    def plan(self, state: State) -> Plan:
        """A choice in the caller's units."""
        kept = {n: p for n, p in state.places.items() if self.owner.get(n) not in state.removed}
        ranks = {n: self.layers[n].ranks[p] for n, p in kept.items()}
        error = sum(float(self.layers[n].error[p]) for n, p in kept.items())
        error += sum(self.blocks[name].error for name in sorted(state.removed))
        shares = self.cost(state)
        return Plan(
            {name: rank for name, rank in ranks.items() if rank is not None},
            tuple(sorted(state.removed)),
            error,
            {b.name: float(s) * b.target for b, s in zip(self.budgets, shares, strict=True)},
        )


def _sorted(layer: Layer, targets: np.ndarray) -> Layer:
    """Candidates from the largest form (dense) to the smallest, costs as shares of the targets."""
    size = [float("inf") if rank is None else rank for rank in layer.ranks]
    order = sorted(range(len(size)), key=lambda i: -size[i])
    costs = np.asarray(layer.costs, dtype=float).reshape(len(size), len(targets))
    error = np.asarray(layer.error, dtype=float)
    return Layer(tuple(layer.ranks[i] for i in order), error[order], costs[order] / targets)
