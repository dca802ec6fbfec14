"""Keep, factorise or remove: the plan of least error within several budgets at once.

In: choices and budgets as in `choices`. Out: the plan. Errors and costs add up over layers, so for
given prices of the budgets every layer takes the form of least error + price * cost, and a block
goes where that is cheaper than the best of its layers (Everett 1963). Each price is the least that
keeps its budget; what is then left goes to single changes by error per share of the budgets.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.models.lowrank.choices import SLACK, Block, Budget, Layer, Plan, Problem, State

_BISECTIONS, _SWEEPS, _HIGHEST = 50, 40, 1e30


def choose(
    layers: Mapping[str, Layer], blocks: Mapping[str, Block], budgets: Sequence[Budget]
) -> Plan:
    """The plan of least summed error (as found) that costs at most every budget's target.

    The order of layers, blocks and candidates does not matter. Raises DistilleryError for a target
    out of reach, naming the range.
    """
    problem = Problem.of(layers, blocks, budgets)
    problem.check_reach()
    state = problem.at(_prices(problem))
    _spend_rest(problem, state)
    return problem.plan(state)


def _prices(problem: Problem) -> np.ndarray:
    """Prices at which every budget is kept: each raised as little as it needs, then lowered.

    Raises DistilleryError if the targets cannot be kept together.
    """
    prices = np.zeros(len(problem.budgets))
    for _ in range(_SWEEPS):
        fits = problem.fits(problem.at(prices))
        if fits.all():
            return _lowered(problem, prices) if len(prices) > 1 else prices
        for index in np.flatnonzero(~fits):
            prices[index] = _least(problem, prices, int(index))
    names = ", ".join(f"{b.name} {b.say(b.target)}" for b in problem.budgets)
    raise DistilleryError(f"{names}: each is within reach, but not all together; relax one")


def _least(problem: Problem, prices: np.ndarray, index: int) -> float:
    """The least price of one budget, not below the present, that keeps it."""

    def keeps(price: float) -> bool:
        trial = prices.copy()
        trial[index] = price
        return bool(problem.fits(problem.at(trial))[index])

    low = float(prices[index])
    high = max(2 * low, 1e-9)
    while not keeps(high) and high < _HIGHEST:
        low, high = high, high * 8
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high


def _lowered(problem: Problem, prices: np.ndarray) -> np.ndarray:
    """Each price in turn as low as all budgets together allow."""
    for index in range(len(prices)):
        low, high = 0.0, float(prices[index])
        for _ in range(_BISECTIONS):
            trial = prices.copy()
            trial[index] = middle = (low + high) / 2
            low, high = (low, middle) if problem.fits(problem.at(trial)).all() else (middle, high)
        prices[index] = high
    return prices


def _spend_rest(problem: Problem, state: State) -> None:
    """While anything fits: the change that takes away the most error for its share of budgets."""
    left = 1 + SLACK - problem.cost(state)
    while (move := _best_move(problem, state, left)) is not None:
        name, place, cost = move
        if name in problem.blocks:
            state.removed.discard(name)
        else:
            state.places[name] = place
        left = left - cost


def _best_move(problem: Problem, state: State, left: np.ndarray) -> tuple | None:
    best, best_rate = None, 0.0
    for name, gains, costs in _moves(problem, state):
        fits = (costs <= left).all(axis=1) & (gains > 0)
        if not fits.any():
            continue
        rates = np.where(fits, gains / np.maximum(costs.max(axis=1), 1e-12), 0.0)
        place = int(np.argmax(rates))
        if rates[place] > best_rate:
            best, best_rate = (name, place, costs[place]), float(rates[place])
    return best


def _moves(problem: Problem, state: State) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, error taken away [moves], costs on top [moves, budgets]) of layers, of blocks."""
    for name, place in state.places.items():
        layer = problem.layers[name]
        if problem.owner.get(name) not in state.removed:
            yield name, layer.error[place] - layer.error, layer.costs - layer.costs[place]
    for name in sorted(state.removed):
        block = problem.blocks[name]
        error = sum(problem.layers[n].error[state.places[n]] for n in block.layers)
        cost = block.costs + sum(problem.layers[n].costs[state.places[n]] for n in block.layers)
        yield name, np.array([block.error - error]), np.atleast_2d(cost)
