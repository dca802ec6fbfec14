"""The condition extractor and feature denormalisation against independent implementations."""

import numpy as np
import pytest
import torch
from control_helpers import inputs, pass_through, trained
from torch import nn

from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.control_adapter.features import (
    ConditionExtractor,
    FeatureDenorm,
    level_channels,
    stem_channels,
)
from tiny_models import tiny_unet


def test_widths_of_stable_diffusion_and_of_scenes():
    assert level_channels((320, 640, 1280, 1280)) == [192, 256, 384, 512]
    assert stem_channels((320, 640, 1280, 1280)) == [32, 64, 64, 128, 128]
    assert level_channels((48, 96)) == [32, 40]
    assert stem_channels((48, 96)) == [16, 32, 32, 64, 64]


@pytest.mark.parametrize("size", [64, 128])
def test_extractor_gives_a_zero_map_per_level_at_the_levels_size(size: int):
    extractor = ConditionExtractor(9, (32, 32, 64, 64))
    outputs = extractor(torch.rand(1, 9, size, size))
    assert [tuple(out.shape[2:]) for out in outputs] == [(size // 2**k,) * 2 for k in (3, 4, 5, 6)]
    assert all(not out.any() for out in outputs)
    assert all(conv.weight.any() for conv in (*extractor.stem, *extractor.levels))


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[None, :, None, None]


@pytest.mark.parametrize("kind", ["frozen", "official"])
def test_fdn_is_its_formula(kind: str):
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    denorm = FeatureDenorm(norm, 6, kind).double()
    x, features = torch.randn(3, 8, 5, 5).double(), torch.randn(3, 6, 5, 5).double()
    with denorm.given(features):
        given = denorm(x).detach().numpy()
    groups = x.numpy().reshape(3, 4, -1)
    mean, var = groups.mean(-1, keepdims=True), groups.var(-1, keepdims=True)
    wanted = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    if kind == "frozen":
        affine = norm.weight.detach().numpy(), norm.bias.detach().numpy()
        wanted = wanted * affine[0][:, None, None] + affine[1][:, None, None]
    gamma, beta = (
        _convolve(features.numpy(), *(p.detach().numpy() for p in phi.parameters()))
        for phi in (denorm.phi_gamma, denorm.phi_beta)
    )
    np.testing.assert_allclose(given, wanted * (1 + gamma) + beta, rtol=1e-9, atol=1e-9)


def test_biases_of_phi_are_zero_unless_official():
    for kind, nonzero in (("frozen", False), ("official", True)):
        denorm = FeatureDenorm(nn.GroupNorm(4, 8), 6, kind)
        for phi in (denorm.phi_gamma, denorm.phi_beta):
            assert bool(phi.bias.any()) == nonzero
            assert phi.weight.any()
        assert not torch.equal(denorm.phi_gamma.weight, denorm.phi_beta.weight)
    assert not list(denorm.norm.parameters())


def test_injection_is_in_both_norms_of_the_first_resnet_of_each_level():
    adapter = ControlAdapter.from_unet(tiny_unet())
    places = [name for name, m in adapter.named_modules() if isinstance(m, FeatureDenorm)]
    assert places == [f"down_blocks.{i}.resnets.0.norm{k}" for i in (0, 1) for k in (1, 2)]


def test_each_level_gets_its_own_features():
    adapter = trained(pass_through(ControlAdapter.from_unet(tiny_unet()))).eval()
    before, _ = adapter(*inputs(), return_dict=False)
    with torch.no_grad():
        adapter.extractor.zero_convs[1].bias.add_(1)
    after, _ = adapter(*inputs(), return_dict=False)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False] * 4 + [True] * 2  # conv_in, two layers and downsampler of level 0
