"""Kronecker branches beside the project's low-rank layers, each of which is one target."""

from copy import deepcopy

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.kronecker import KroneckerConfig, KroneckerLayer
from distillery.models.layers import LowRankConv2d, LowRankLinear, low_rank_layers
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import unet_inputs

TARGETS = ["to_q", "to_out.0", "conv1", "downsamplers.0.conv", "conv_in"]


def branches(model):
    """The shape of the update of every adapted layer, by the layer's name."""
    return {
        name.removeprefix("base_model.model."): module.shape
        for name, module in model.named_modules()
        if isinstance(module, KroneckerLayer)
    }


def scramble(model):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


@torch.no_grad()
def run(model):
    return model(**unet_inputs()).sample


@pytest.mark.parametrize("targets", [TARGETS, "all-linear", r".*\.(to_k|conv2)(\..*)?"])
def test_branches_are_those_of_the_dense_backbone(unet, student, targets):
    settings = {"n": 4, "r": 2, "target_modules": targets}
    before = run(student)
    low_rank = get_peft_model(student, KroneckerConfig(**settings))
    dense = get_peft_model(unet, KroneckerConfig(**settings))
    assert branches(low_rank) == branches(dense)
    assert not any("reduce" in name or "expand" in name for name in branches(low_rank))
    assert torch.equal(run(low_rank), before)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (LowRankLinear(12, 8, 3), (5, 12)),
        (LowRankConv2d(4, 8, 3, 5, stride=2, padding=1, dtype=torch.float32), (2, 4, 7, 6)),
        (LowRankConv2d(6, 8, 1, 3, bias=False), (2, 6, 3, 5)),
    ],
)
def test_the_branch_is_parallel_to_the_whole_layer(layer, shape):
    layer = layer.double()
    model = scramble(
        get_peft_model(nn.Sequential(layer), KroneckerConfig(n=2, r=3, target_modules=["0"]))
    )
    wrapped = model.base_model.model[0]
    a, u, v = (getattr(wrapped, f"kronecker_{k}")["default"] for k in ("A", "u", "v"))
    update = sum(torch.kron(a[i], u[i] @ v[i]) for i in range(2))
    weight = layer.merged_weight() + update.reshape(layer.merged_weight().shape)
    x = torch.randn(shape, dtype=torch.float64)
    if isinstance(layer, LowRankLinear):
        expected = nn.functional.linear(x, weight, layer.bias)
    else:
        first = layer.reduce
        expected = nn.functional.conv2d(x, weight, layer.bias, first.stride, first.padding)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_merging_makes_the_layers_dense_and_the_model_still_saves(student, tmp_path):
    num_low_rank = len(low_rank_layers(student))
    model = scramble(get_peft_model(student, KroneckerConfig(r=2, target_modules=["to_q"])))
    expected = run(model)
    with pytest.raises(DistilleryError, match=r"to_q: .* merge_and_unload"):
        model.merge_adapter()
    assert torch.equal(run(model), expected)
    merged = model.merge_and_unload()
    torch.testing.assert_close(run(merged), expected, rtol=1e-4, atol=1e-4)
    remaining = low_rank_layers(merged)
    assert 0 < len(remaining) < num_low_rank
    assert not any(name.endswith("to_q") for name in remaining)
    merged.save_pretrained(tmp_path)
    assert torch.equal(run(LowRankUNet2DConditionModel.from_pretrained(tmp_path)), run(merged))


def test_saved_adapter_fits_the_student_again(student, tmp_path):
    backbone = deepcopy(student)
    model = scramble(get_peft_model(student, KroneckerConfig(r=2, target_modules=TARGETS)))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(backbone, tmp_path)
    assert torch.equal(run(loaded), run(model))
    with loaded.disable_adapter():
        assert not torch.equal(run(loaded), run(model))
    assert type(loaded.unload()) is LowRankUNet2DConditionModel
