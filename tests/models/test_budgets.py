"""Plans under budgets: within their targets, near the best, whatever the order."""

import itertools

import numpy as np
import pytest

from distillery.core.errors import DistilleryError
from distillery.models.lowrank.budgets import choose
from distillery.models.lowrank.choices import Block, Budget, Layer


def random_layers(seed: int, num: int, num_budgets: int = 1, forms: int = 5) -> dict[str, Layer]:
    """Errors fall and costs rise with the rank, neither evenly; dense has no error."""
    draw = np.random.default_rng(seed)
    layers = {}
    for index in range(num):
        error = np.sort(draw.random(forms))[::-1] * draw.random() * 2
        costs = np.sort(draw.random((forms, num_budgets)), axis=0) + 0.05
        error[-1] = 0
        layers[f"layer{index}"] = Layer((*range(8, 8 * forms, 8), None), error, costs)
    return layers


def random_blocks(seed: int, layers, num_budgets: int = 1) -> dict[str, Block]:
    """Pairs of layers, with an error of removal and costs of their own."""
    draw = np.random.default_rng(seed + 100)
    names = sorted(layers)
    return {
        f"block{i}": Block((names[2 * i], names[2 * i + 1]), draw.random() * 2,
                           draw.random(num_budgets) * 0.3)
        for i in range(len(names) // 3)
    }  # fmt: skip


def dense_costs(layers, blocks) -> np.ndarray:
    total = sum(layer.costs[layer.ranks.index(None)] for layer in layers.values())
    return total + sum(block.costs for block in blocks.values())


def cost_of(plan, layers, blocks, fixed=0.0) -> np.ndarray:
    """Counted anew, from the plan alone."""
    gone = {n for name in plan.removed for n in blocks[name].layers}
    kept = {n: layer for n, layer in layers.items() if n not in gone}
    total = fixed + sum(
        layer.costs[layer.ranks.index(plan.ranks.get(n))] for n, layer in kept.items()
    )
    return total + sum(b.costs for n, b in blocks.items() if n not in plan.removed)


@pytest.mark.parametrize("seed", range(12))
def test_a_plan_never_exceeds_its_targets(seed):
    num_budgets = 1 + seed % 3
    layers = random_layers(seed, 9, num_budgets)
    blocks = random_blocks(seed, layers, num_budgets)
    dense = dense_costs(layers, blocks) + 0.5
    for share in (0.35, 0.5, 0.75, 0.99):
        budgets = [Budget(f"b{k}", share * dense[k], 0.5) for k in range(num_budgets)]
        plan = choose(layers, blocks, budgets)
        costs = cost_of(plan, layers, blocks, 0.5)
        assert all(costs <= [budget.target * (1 + 1e-9) for budget in budgets])
        assert list(plan.costs.values()) == pytest.approx(list(costs))
        gone = {n for name in plan.removed for n in blocks[name].layers}
        assert not gone & set(plan.ranks)


def every_plan(layers, blocks):
    """(error, cost) of all plans of a tiny problem."""
    for removed in itertools.product((False, True), repeat=len(blocks)):
        out = [block for block, gone in zip(blocks.values(), removed, strict=True) if gone]
        names = [n for n in layers if not any(n in block.layers for block in out)]
        kept = [block for block, gone in zip(blocks.values(), removed, strict=True) if not gone]
        for forms in itertools.product(*(range(len(layers[n].ranks)) for n in names)):
            error = sum(layers[n].error[f] for n, f in zip(names, forms, strict=True))
            cost = sum((layers[n].costs[f] for n, f in zip(names, forms, strict=True)), np.zeros(1))
            yield (
                error + sum(block.error for block in out),
                float(cost[0]) + sum(float(block.costs[0]) for block in kept),
            )


def test_plans_are_near_the_best_of_all():
    ratios = []
    for seed in range(8):
        layers = random_layers(seed, 6, forms=4)
        blocks = random_blocks(seed, layers)
        target = 0.6 * dense_costs(layers, blocks)[0]
        best = min(e for e, cost in every_plan(layers, blocks) if cost <= target)
        plan = choose(layers, blocks, [Budget("b", target, 0.0)])
        assert plan.error >= best - 1e-12
        ratios.append(plan.error / best)
    assert np.mean(ratios) < 1.3
    assert np.median(ratios) == pytest.approx(1)


def lower_bound(layers, blocks, target: float) -> float:
    """No plan errs less: the best over prices of the cheapest error + price * (cost - target)."""
    bounds = []
    for price in np.geomspace(1e-3, 1e3, 400):
        best = {n: np.min(layer.error + price * layer.costs[:, 0]) for n, layer in layers.items()}
        total = sum(
            min(block.error, price * block.costs[0] + sum(best.pop(n) for n in block.layers))
            for block in blocks.values()
        )
        bounds.append(total + sum(best.values()) - price * target)
    return max(bounds)


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_plans_of_many_layers_are_within_a_hundredth_of_the_bound(share):
    layers = random_layers(5, 240)
    blocks = random_blocks(5, layers)
    target = share * dense_costs(layers, blocks)[0]
    plan = choose(layers, blocks, [Budget("b", target, 0.0)])
    bound = lower_bound(layers, blocks, target)
    assert bound - 1e-9 <= plan.error <= 1.01 * bound


def test_a_target_of_the_dense_cost_keeps_everything():
    layers = random_layers(3, 9)
    blocks = random_blocks(3, layers)
    dense = dense_costs(layers, blocks)[0] + 0.5
    for target in (dense, 2 * dense):
        plan = choose(layers, blocks, [Budget("b", target, 0.5)])
        assert (plan.ranks, plan.removed, plan.error) == ({}, (), 0)
        assert plan.costs["b"] == pytest.approx(dense)


def test_one_candidate_is_taken():
    layers = {
        "a": Layer((16,), np.array([0.7]), np.array([[1.0]])),
        "b": Layer((None,), np.array([0.0]), np.array([[2.0]])),
    }
    plan = choose(layers, {}, [Budget("b", 3.0, 0.0)])
    assert (plan.ranks, plan.removed, plan.error) == ({"a": 16}, (), 0.7)
    with pytest.raises(DistilleryError, match="out of reach"):
        choose(layers, {}, [Budget("b", 2.9, 0.0)])


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_layers_blocks_and_candidates_changes_nothing(seed):
    layers = random_layers(seed, 9, 2)
    blocks = random_blocks(seed, layers, 2)
    target = 0.5 * dense_costs(layers, blocks)
    budgets = [Budget(name, float(t), 0.0) for name, t in zip("ab", target, strict=True)]
    plan = choose(layers, blocks, budgets)
    draw = np.random.default_rng(seed)
    names, places = list(layers), draw.permutation(5)
    shuffled = {
        names[i]: Layer(
            tuple(layers[names[i]].ranks[p] for p in places),
            layers[names[i]].error[places],
            layers[names[i]].costs[places],
        )
        for i in draw.permutation(len(names))
    }
    assert choose(shuffled, dict(reversed(blocks.items())), budgets) == plan
    assert plan.ranks or plan.removed


def test_equal_layers_need_not_share_a_form():
    """What the price leaves unspent goes to single layers."""
    error, costs = np.array([1.0, 0.0]), np.array([[1.0], [2.0]])
    layers = {f"layer{i}": Layer((8, None), error, costs) for i in range(4)}
    plan = choose(layers, {}, [Budget("b", 6.5, 0.0)])
    assert len(plan.ranks) == 2
    assert plan.costs["b"] == 6


def test_a_block_goes_where_that_errs_less_than_its_layers():
    layer = Layer((8, None), np.array([5.0, 0.0]), np.array([[1.0], [2.0]]))
    layers, block = {"in": layer, "out": layer}, Block(("in",), 0.1, np.array([0.5]))
    plan = choose(layers, {"block": block}, [Budget("b", 2.0, 0.0)])
    assert (plan.ranks, plan.removed) == ({}, ("block",))
    assert plan.costs["b"] == 2
    dear = Block(("in",), 50.0, np.array([0.5]))
    plan = choose(layers, {"block": dear}, [Budget("b", 3.5, 0.0)])
    assert plan.removed == ()
    assert len(plan.ranks) == 1


def test_out_of_reach_names_the_range_in_the_users_unit():
    layers = random_layers(1, 9)
    blocks = random_blocks(1, layers)
    ms = Budget("--target-ms", 0.01, 0.02, lambda s: f"{1e3 * s:.0f} ms")
    message = (
        r"--target-ms 10 ms is out of reach.* \d+ ms \(every layer in its cheapest form, every"
    )
    with pytest.raises(DistilleryError, match=message):
        choose(layers, blocks, [ms])
    with pytest.raises(DistilleryError, match="must be above 0"):
        choose(layers, blocks, [Budget("b", 0.0, 0.0)])


def test_targets_that_exclude_each_other_are_refused():
    """Of two forms one is too slow and the other too large."""
    layers = {"a": Layer((8, None), np.array([1.0, 0.0]), np.array([[1.0, 9.0], [9.0, 1.0]]))}
    budgets = [Budget("slow", 2.0, 0.0), Budget("large", 2.0, 0.0)]
    with pytest.raises(DistilleryError, match="each is within reach, but not all together"):
        choose(layers, {}, budgets)
