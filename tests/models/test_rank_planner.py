import itertools

import numpy as np
import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.cost.counts import count_macs
from distillery.models.layers import LayerShape, layer_shapes
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.moments import collect_second_moments
from distillery.models.lowrank.planner import (
    Cost,
    allocate,
    factorable,
    mac_costs,
    parameter_costs,
    predicted_error,
    spectrum_ranks,
    total_cost,
    uniform_ranks,
)
from distillery.models.lowrank.ranks import read_ranks
from distillery.models.lowrank.spectra import output_spectra, weight_spectra
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import unet_inputs


def brute_force(spectra, costs, budget):
    """Least error over every combination of ranks, None being dense."""
    names = list(spectra)
    choices = []
    for name in names:
        kept = np.cumsum(spectra[name]) / spectra[name].sum()
        ranks = [r for r in range(1, len(kept) + 1) if costs[name].at(r) < costs[name].dense]
        points = [(costs[name].at(r), 1 - kept[r - 1]) for r in ranks]
        choices.append([*points, (costs[name].dense, 0.0)])
    plans = itertools.product(*choices)
    return min(sum(e for _, e in plan) for plan in plans if sum(c for c, _ in plan) <= budget)


@pytest.mark.parametrize("seed", range(5))
def test_allocation_is_near_the_best_of_all_plans(seed):
    random = np.random.default_rng(seed)
    spectra = {n: np.sort(random.exponential(size=6) ** 3)[::-1] for n in "abcd"}
    costs = {n: Cost(int(random.integers(2, 9)), 0) for n in "abcd"}
    costs = {n: Cost(c.per_rank, int(4.5 * c.per_rank)) for n, c in costs.items()}
    dense = sum(c.dense for c in costs.values())
    for share in (0.3, 0.5, 0.7, 0.9):
        ranks = allocate(spectra, costs, share * dense)
        assert total_cost(costs, ranks) <= share * dense
        best = brute_force(spectra, costs, share * dense)
        # Off the convex hull it may miss the optimum by less than one component.
        assert best - 1e-9 <= predicted_error(spectra, ranks) <= best + 0.25


def test_a_layer_of_low_rank_gets_less_than_one_of_full_rank():
    flat, steep = np.ones(20), np.array([1.0] * 2 + [1e-9] * 18)
    costs = {"flat": Cost(40, 400), "steep": Cost(40, 400)}
    ranks = allocate({"flat": flat, "steep": steep}, costs, 480)
    assert ranks == {"steep": 2}  # the other one is dense


def test_budget_out_of_reach_names_the_range():
    with pytest.raises(DistilleryError, match=r"80 .* to 800"):
        allocate(dict.fromkeys("ab", np.ones(5)), dict.fromkeys("ab", Cost(40, 400)), 79)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_spectrum_rule_meets_a_target_and_beats_the_uniform_rule(unet, share):
    with torch.no_grad():  # half of the layers have quickly falling spectra
        for index, name in enumerate(factorable(layer_shapes(unet))):
            weight = unet.get_submodule(name).weight
            u, s, vt = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            if index % 2:
                s = s * torch.exp(-torch.arange(len(s)) / 3)
            weight.copy_((u * s @ vt).reshape(weight.shape))
    target = share * sum(p.numel() for p in unet.parameters())
    ranks = spectrum_ranks(unet, target=target)
    student = LowRankUNet2DConditionModel.empty(unet.config, ranks)
    count = sum(p.numel() for p in student.parameters())
    assert 0.99 * target < count <= target
    shapes = layer_shapes(unet)
    names = factorable(shapes)
    costs = {n: c for n, c in parameter_costs(shapes).items() if n in names}
    budget = target - sum(p.numel() for p in unet.parameters())
    budget += sum(shapes[n].num_dense for n in names)
    spectra = weight_spectra(unet, names)
    uniform = uniform_ranks(shapes, costs, budget)
    assert 0.995 * budget < total_cost(costs, uniform) <= budget
    assert predicted_error(spectra, ranks) < 0.7 * predicted_error(spectra, uniform)


def test_mac_costs_predict_the_counted_macs_of_the_student(unet):
    inputs = unet_inputs()
    costs = mac_costs(unet, **inputs)
    ranks = uniform_ranks(layer_shapes(unet), costs, 0.5 * sum(c.dense for c in costs.values()))
    student = factorise_unet(unet, ranks)[0]
    rest = count_macs(unet, **inputs) - sum(c.dense for c in costs.values())
    assert count_macs(student, **inputs) == total_cost(costs, ranks) + rest


def test_weight_spectra_are_squared_singular_values(unet):
    spectrum = weight_spectra(unet, ["conv_in"])["conv_in"]
    expected = np.linalg.svd(unet.conv_in.weight.detach().flatten(1).numpy(), compute_uv=False)
    np.testing.assert_allclose(spectrum, expected**2, rtol=1e-4)


def test_output_spectra_are_the_energies_of_output_components(unet):
    names = ["conv_in", "time_embedding.linear_1", "conv_out"]
    moments = collect_second_moments(unet, [unet_inputs()], names=names)
    outputs = {}
    for name in names:
        layer = unet.get_submodule(name)
        layer.register_forward_hook(lambda m, a, y, name=name: outputs.update({name: (m, y)}))
    with torch.no_grad():
        unet(**unet_inputs())
    found = output_spectra(unet, moments)
    for name, (layer, y) in outputs.items():
        rows = (y.movedim(1, -1) if y.ndim == 4 else y).reshape(-1, len(layer.bias))
        rows = (rows - layer.bias).detach().double().numpy()
        expected = np.linalg.svd(rows / np.sqrt(len(rows)), compute_uv=False) ** 2
        size = min(len(expected), len(found[name]))
        np.testing.assert_allclose(
            found[name][:size], expected[:size], rtol=1e-4, atol=1e-6 * expected[0]
        )


def test_ranks_come_back_from_a_file_and_are_checked(tmp_path, unet):
    path = tmp_path / "ranks.json"
    path.write_text('{"ranks": {"time_embedding.linear_1": 5}}')
    assert read_ranks(path, unet) == {"time_embedding.linear_1": 5}
    for text, message in (
        ('{"ranks": {"nowhere": 5}}', "no layer 'nowhere'"),
        ('{"ranks": {"conv_in": 900}}', "conv_in: rank 900"),
        ("{}", "no ranks in it"),
        ("[]", "no mapping; write it with `distillery ranks"),
    ):
        path.write_text(text)
        with pytest.raises(DistilleryError, match=message):
            read_ranks(path, unet)


def test_spectrum_rule_needs_weights(unet):
    with pytest.raises(DistilleryError, match="needs the teacher's weights"):
        spectrum_ranks(unet.to("meta"), target=1e5)


def test_uniform_rule_says_what_is_out_of_reach():
    shapes = {"a": LayerShape(10, 10)}
    with pytest.raises(DistilleryError, match="rank 1 everywhere costs 20"):
        uniform_ranks(shapes, parameter_costs(shapes), 10, keep_dense=())
