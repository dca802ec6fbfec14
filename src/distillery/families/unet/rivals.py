"""Students within the same targets by plainer rules: what a plan by latency is compared with.

In: costs, targets, errors. Out: ranks and removed blocks, or None where a rule cannot keep the
targets. Not here: the plan by latency (`latency_plan`).
"""

import random
from collections.abc import Iterable, Mapping, Sequence

from distillery.core.errors import DistilleryError
from distillery.cost.latency.costs import KINDS, Costs
from distillery.families.unet.latency_plan import Choice, Target, fits, make_plan
from distillery.models.lowrank.choices import Plan
from distillery.models.lowrank.errors import Errors
from distillery.models.lowrank.ranks import plan_ranks

_RATIOS = _SIZES = 200
_SEED = 0


def uniform_plan(
    costs: Costs, targets: Sequence[Target], keep_dense: Sequence[str]
) -> Choice | None:
    """ELR's rule at the largest of 200 ratios that fits the targets."""
    for step in range(_RATIOS, 0, -1):
        ranks = plan_ranks(costs.parts.shapes, "ratio", step / _RATIOS, keep_dense=keep_dense)
        if fits(costs, targets, ranks):
            return ranks, ()
    return None


def parameters_plan(
    costs: Costs,
    targets: Sequence[Target],
    errors: Errors,
    ranks: Mapping[str, Sequence[int]],
) -> Choice | None:
    """Planned for parameters, blind to time: the largest of 200 budgets whose plan fits.

    Found by bisection, as if a larger budget never made a faster student.
    """
    best: Choice | None = None
    low, high = 0, _SIZES + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            plan = _of_size(costs, errors, ranks, middle / _SIZES)
        except DistilleryError:  # too few parameters for any plan
            low = middle
            continue
        if fits(costs, targets, plan.ranks, plan.removed):
            low, best = middle, (plan.ranks, plan.removed)
        else:
            high = middle
    return best


def _of_size(
    costs: Costs, errors: Errors, ranks: Mapping[str, Sequence[int]], share: float
) -> Plan:
    dense = float(costs.dense[KINDS.index("parameters")])
    return make_plan(costs, errors, [Target("parameters", share * dense, "parameters")], ranks)


def removal_plan(costs: Costs, targets: Sequence[Target], errors: Errors) -> Choice | None:
    """Blocks alone, as BK-SDM removes them, one after the other until the targets are met.

    Those of least measured error first; where none was measured in BK-SDM's own order: the second
    pair of every stage, then the middle, then the rest (Kim et al. 2023, section 3.1).
    """
    names = list(costs.parts.blocks)
    order = sorted(names, key=lambda n: (errors.removal.get(n, 0.0), _stage(n), names.index(n)))
    return _first_that_fits(costs, targets, order)


def _stage(name: str) -> int:
    if name.startswith("mid_block"):
        return 1
    return 0 if name.endswith(".1") else 2


def random_removal_plan(
    costs: Costs, targets: Sequence[Target], seed: int = _SEED
) -> Choice | None:
    """Blocks alone, in a random order, until the targets are met."""
    order = sorted(costs.parts.blocks)
    random.Random(seed).shuffle(order)
    return _first_that_fits(costs, targets, order)


def _first_that_fits(
    costs: Costs, targets: Sequence[Target], order: Iterable[str]
) -> Choice | None:
    order = list(order)
    for count in range(len(order) + 1):
        if fits(costs, targets, {}, order[:count]):
            return {}, tuple(sorted(order[:count]))
    return None


def choose_by(
    criterion: str,
    costs: Costs,
    target: Target,
    errors: Errors,
    ranks: Mapping[str, Sequence[int]],
    keep_dense: Sequence[str],
) -> Choice:
    """A plan within a latency by any criterion of the params; `ranks` as in `make_plan`.

    Raises DistilleryError for a target that the criterion cannot keep, with the least that it can.
    """
    if criterion == "latency":
        plan = make_plan(costs, errors, [target], ranks)
        return plan.ranks, plan.removed
    choice = {
        "uniform": lambda: uniform_plan(costs, [target], keep_dense),
        "parameters": lambda: parameters_plan(costs, [target], errors, ranks),
        "removal": lambda: removal_plan(costs, [target], errors),
        "random_removal": lambda: random_removal_plan(costs, [target]),
    }[criterion]()
    if choice is None:
        least = costs.of(*_least(criterion, costs, keep_dense))["latency"]
        raise DistilleryError(
            f"{target.name} {target.say(target.limit)} is out of reach by {criterion}, whose least "
            f"is {target.say(least)}; ask for more, or plan by latency"
        )
    return choice


def _least(criterion: str, costs: Costs, keep_dense: Sequence[str]) -> Choice:
    """The smallest that a criterion gives: its lowest rank everywhere, or every block gone."""
    if criterion == "uniform":
        return plan_ranks(costs.parts.shapes, "fixed", 1, keep_dense=keep_dense), ()
    return {}, tuple(costs.parts.blocks)
