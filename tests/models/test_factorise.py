import json

import pytest
import torch
from peft import LoraConfig

from distillery.core.errors import DistilleryError
from distillery.models.layers import low_rank_layers
from distillery.models.lowrank.decompose import decompose
from distillery.models.lowrank.factorise import factorise_unet, rebalance
from distillery.models.lowrank.moments import collect_second_moments
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import unet_inputs

LAYER = "down_blocks.1.resnets.0.conv1"


@torch.no_grad()
def run(unet):
    return unet(**unet_inputs()).sample


def test_report_has_one_true_row_per_layer(unet):
    ranks = plan_ranks(unet)
    student, rows = factorise_unet(unet, ranks)
    assert [row["name"] for row in rows] == list(low_rank_layers(student))
    assert json.loads(json.dumps(rows)) == rows
    row = next(row for row in rows if row["name"] == LAYER)
    weight = unet.get_submodule(LAYER).weight.detach().flatten(1).double()
    squares = torch.linalg.svdvals(weight).square()
    kept = (squares[:21].sum() / squares.sum()).item()
    assert row == {
        "name": LAYER,
        "kind": "conv2d",
        "shape": [64, 32, 3, 3],
        "rank": 21,
        "full_rank": 64,
        "relative_error": pytest.approx((1 - kept) ** 0.5, abs=1e-6),
        "energy_kept": pytest.approx(kept, abs=1e-6),
        "relative_output_error": None,
        "params_before": 64 * 288 + 64,
        "params_after": 21 * (64 + 288) + 64,
    }
    removed = sum(row["params_before"] - row["params_after"] for row in rows)
    num_params = [sum(p.numel() for p in model.parameters()) for model in (unet, student)]
    assert num_params[0] - num_params[1] == removed


def test_factors_are_those_of_the_decomposition(unet):
    student, _ = factorise_unet(unet, plan_ranks(unet))
    layer = student.get_submodule(LAYER)
    a, b = decompose(unet.get_submodule(LAYER).weight, 21)
    torch.testing.assert_close(layer.expand.weight.flatten(1).double(), a, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.reduce.weight.flatten(1).double(), b, rtol=0, atol=1e-6)
    assert torch.equal(layer.bias, unet.get_submodule(LAYER).bias)
    assert torch.equal(student.conv_in.weight, unet.conv_in.weight)


def test_data_aware_beats_svd_on_the_outputs_it_was_fitted_to(unet):
    ranks = plan_ranks(unet)
    # Second moments that fall off, as activations of trained networks do.
    with torch.no_grad():
        unet.conv_in.weight.mul_(torch.logspace(1, -1, 32).view(-1, 1, 1, 1))
    moments = collect_second_moments(unet, [unet_inputs(seed=seed) for seed in range(4)])
    output_errors, weight_errors, students = {}, {}, {}
    for init in ("svd", "data_aware"):
        students[init], rows = factorise_unet(unet, ranks, init, moments=moments)
        output_errors[init] = [row["relative_output_error"] for row in rows]
        weight_errors[init] = [row["relative_error"] for row in rows]
    pairs = list(zip(output_errors["data_aware"], output_errors["svd"], strict=True))
    assert all(ours <= theirs + 0.02 for ours, theirs in pairs)
    assert sum(ours for ours, _ in pairs) < 0.8 * sum(theirs for _, theirs in pairs)
    assert sum(weight_errors["svd"]) < sum(weight_errors["data_aware"])
    error = {init: (run(student) - run(unet)).norm() for init, student in students.items()}
    assert error["data_aware"] < 0.8 * error["svd"]


def test_low_rank_and_adapted_unets_are_refused(unet, student):
    with pytest.raises(DistilleryError, match="low-rank already"):
        factorise_unet(student, student.config.ranks)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(DistilleryError, match="carries adapters"):
        factorise_unet(unet, student.config.ranks)


def test_errors_name_the_layer(unet):
    with torch.no_grad():
        unet.get_submodule(LAYER).weight[0, 0] = torch.nan
    with pytest.raises(DistilleryError, match=f"{LAYER}: the weight holds NaN"):
        factorise_unet(unet, {LAYER: 4})
    with pytest.raises(DistilleryError, match=f"moments hold nothing for layer {LAYER}"):
        factorise_unet(unet, {LAYER: 4}, "data_aware", moments={})
    with pytest.raises(DistilleryError, match="data_aware needs moments"):
        factorise_unet(unet, {LAYER: 4}, "data_aware")


def test_rebalance_gives_the_balanced_factors_without_the_dense_weights(unet, student, tmp_path):
    student.save_pretrained(tmp_path)
    rebalanced = rebalance(LowRankUNet2DConditionModel.from_pretrained(tmp_path))
    for name, layer in low_rank_layers(rebalanced).items():
        a, b = decompose(unet.get_submodule(name).weight, layer.rank)
        root = a.norm(dim=0).sqrt()
        for found, wanted in ((layer.expand, a / root), (layer.reduce, b * root[:, None])):
            flat = found.weight.flatten(1).double()
            torch.testing.assert_close(flat, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run(rebalanced), run(student), rtol=0, atol=1e-5)
    once = {name: value.clone() for name, value in rebalanced.state_dict().items()}
    for name, value in rebalance(rebalanced).state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-6, atol=0)


def test_rebalance_keeps_empty_components(student):
    layer = student.get_submodule(LAYER)
    with torch.no_grad():
        layer.expand.weight[:, 3] = 0
    before = layer.reduce.weight[3].clone()
    rebalance(student)
    assert torch.equal(layer.reduce.weight[3], before)
    assert all(bool(value.isfinite().all()) for value in student.state_dict().values())
