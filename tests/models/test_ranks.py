import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.models.architectures import build_meta
from distillery.models.layers import LayerShape, layer_shapes
from distillery.models.lowrank.ranks import num_weights, plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel


def num_params(unet, ranks):
    model = LowRankUNet2DConditionModel.empty(unet.config, ranks)
    return sum(parameter.numel() for parameter in model.parameters())


def test_ratio_is_a_third_of_the_full_rank_by_default(unet):
    ranks = plan_ranks(unet)
    shapes = layer_shapes(unet)
    assert set(shapes) - set(ranks) == {"conv_in", "conv_out"}
    assert all(rank == shapes[name].full_rank // 3 for name, rank in ranks.items())
    assert set(ranks.values()) == {10, 21, 42}


def test_layers_stay_dense_where_factors_would_not_be_smaller():
    shapes = {"square": LayerShape(8, 8), "wide": LayerShape(8, 100)}
    # 4 * (8 + 8) = 64 = 8 * 8 saves nothing; 4 * (8 + 100) = 432 < 800 does.
    assert plan_ranks(shapes, value=0.5, keep_dense=()) == {"wide": 4}


def test_ratio_survives_floating_point_and_never_reaches_zero():
    shapes = {"a": LayerShape(100, 900), "b": LayerShape(2, 50)}
    assert plan_ranks(shapes, value=0.29, keep_dense=()) == {"a": 29, "b": 1}


def test_fixed_is_capped_by_the_full_rank():
    shapes = {"a": LayerShape(100, 900), "b": LayerShape(4, 50), "c": LayerShape(64, 64)}
    assert plan_ranks(shapes, "fixed", 16, keep_dense=()) == {"a": 16, "c": 16}


@pytest.mark.parametrize("energy", [0.5, 0.9])
def test_energy_takes_the_least_rank_that_keeps_the_share(unet, energy):
    ranks = plan_ranks(unet, "energy", energy)
    assert ranks
    for name, rank in ranks.items():
        weight = unet.get_submodule(name).weight.detach().flatten(1).double()
        squares = torch.linalg.svdvals(weight).square()
        assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-9)
        assert squares[: rank - 1].sum() < energy * squares.sum()


def test_full_energy_keeps_everything_dense(unet):
    shapes = layer_shapes(unet)
    ranks = plan_ranks(unet, "energy", 1.0)
    # Only matrices far from square are still smaller at (nearly) full rank.
    assert all(
        shapes[name].num_low_rank(rank) < shapes[name].num_dense for name, rank in ranks.items()
    )


@pytest.mark.parametrize("target", [560e6, 790e6, 1289e6])
def test_target_total_is_met_on_stable_diffusion(target):
    parts = build_meta("sd21")
    other = sum(p.numel() for key in ("text_encoder", "vae") for p in parts[key].parameters())
    ranks = plan_ranks(parts["unet"], "target_total", target, other_params=other)
    total = num_params(parts["unet"], ranks) + other
    assert target * 0.998 < total <= target


@pytest.mark.parametrize("share", [0.1, 0.3, 0.55, 0.9, 1.0])
def test_target_total_is_met_on_a_tiny_unet(unet, share):
    target = share * sum(parameter.numel() for parameter in unet.parameters())
    ranks = plan_ranks(unet, "target_total", target)
    assert target * 0.998 < num_params(unet, ranks) <= target


def test_target_from_shapes_agrees_with_target_from_the_model(unet):
    shapes = layer_shapes(unet)
    outside = sum(p.numel() for p in unet.parameters()) - num_weights(shapes, {})
    from_model = plan_ranks(unet, "target_total", 800_000)
    from_shapes = plan_ranks(shapes, "target_total", 800_000, other_params=outside)
    assert from_model == from_shapes


def test_unreachable_target_names_the_feasible_range(unet):
    total = sum(parameter.numel() for parameter in unet.parameters())
    smallest = num_params(unet, dict.fromkeys(plan_ranks(unet), 1))
    for target in (smallest - 1, total + 1):
        with pytest.raises(DistilleryError, match=rf"allow {smallest} .* to {total} "):
            plan_ranks(unet, "target_total", target)


def test_patterns_keep_layers_dense(unet):
    patterns = ("conv_in", "conv_out", "time_embedding.*", "*.to_[kv]")
    kept = set(plan_ranks(unet)) - set(plan_ranks(unet, keep_dense=patterns))
    assert {"time_embedding.linear_1", "time_embedding.linear_2"} < kept
    assert any(name.endswith("attn2.to_k") for name in kept)
    assert all(name.startswith("time_embedding") or name[-4:] in ("to_k", "to_v") for name in kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "spectrum"}, "rank rule 'spectrum' is unknown"),
        ({"value": 0}, "ratio: 0 given"),
        ({"value": 1.5}, "above 0 and at most 1"),
        ({"rule": "fixed"}, "fixed: None given"),
        ({"rule": "fixed", "value": 0.5}, "fixed: 0 given"),
        ({"rule": "energy", "value": 2}, "energy: 2 given"),
        ({"rule": "target_total"}, "target_total: None given"),
        ({"keep_dense": ["conv_im"]}, "no layer matches 'conv_im'"),
    ],
)
def test_refuses_senseless_settings(unet, arguments, message):
    with pytest.raises(DistilleryError, match=message):
        plan_ranks(unet, **arguments)


def test_energy_needs_weights(unet):
    with pytest.raises(DistilleryError, match="needs the model's weights"):
        plan_ranks(layer_shapes(unet), "energy", 0.9)
    with pytest.raises(DistilleryError, match="is on meta"):
        plan_ranks(unet.to("meta"), "energy", 0.9)
