from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.hadamard.conv import HadamardConv2d, plan_hadamard_ranks, rank_limit
from distillery.models.layers import LayerShape


def product(layer: HadamardConv2d) -> np.ndarray:
    """The weight by its definition, entry by entry, in NumPy."""
    x1, y1, x2, y2 = (factor.detach().double().numpy() for factor in layer.factors)
    first = np.einsum("or,rf->of", x1, y1)
    second = np.einsum("or,rf->of", x2, y2)
    shape = (layer.out_channels, layer.in_channels, *layer.kernel_size)
    return (first * second).reshape(shape)


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "padding": 1, "bias": False}])
def test_is_the_convolution_with_the_product_as_weight(options):
    torch.manual_seed(0)
    layer = HadamardConv2d(6, 10, 3, rank=4, **options).double()
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64)

    conv = {key: value for key, value in options.items() if key != "bias"}
    expected = nn.functional.conv2d(x, torch.from_numpy(product(layer)), layer.bias, **conv)

    assert torch.allclose(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_autograd_on_the_product():
    torch.manual_seed(0)
    layer = HadamardConv2d(3, 5, 3, rank=2, padding=1).double()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    layer(x).square().sum().backward()
    x1, y1, x2, y2 = (f.detach().clone().requires_grad_() for f in layer.factors)

    weight = ((x1 @ y1) * (x2 @ y2)).reshape(5, 3, 3, 3)
    nn.functional.conv2d(x, weight, layer.bias, padding=1).square().sum().backward()

    for factor, expected in zip(layer.factors, (x1, y1, x2, y2), strict=True):
        assert torch.allclose(factor.grad, expected.grad, rtol=1e-10)


def test_backward_keeps_no_dense_product_but_the_weight_itself():
    layer = HadamardConv2d(16, 16, 3, rank=2, padding=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(1, 16, 4, 4))

    dense = {t.untyped_storage().data_ptr() for t in kept if t.numel() == 16 * 16 * 9}
    assert len(dense) == 1


@pytest.mark.parametrize("rank", [1, 4, 32])
@pytest.mark.parametrize("shape", [(8, 8), (64, 48)])
def test_initial_variance_is_that_of_a_kaiming_convolution(shape, rank):
    torch.manual_seed(3)
    layer = HadamardConv2d(*shape, 3, rank=rank)
    dense = nn.Conv2d(512, 512, 3).weight.detach()  # large, so that its own draw strays little
    expected = float(dense.var()) * 512 / shape[0]

    assert float(layer.weight.detach().var()) == pytest.approx(expected, rel=0.05)
    assert abs(float(layer.weight.detach().mean())) < 0.3 * expected**0.5
    he = nn.init.kaiming_normal_(torch.empty(512, 512, 3, 3))
    layer.reset_parameters(negative_slope=0.0)
    assert float(layer.weight.detach().var()) == pytest.approx(
        float(he.var()) * 512 / shape[0], rel=0.05
    )


def test_fit_lowers_the_error_in_every_sweep():
    torch.manual_seed(0)
    dense = nn.Conv2d(12, 16, 3, padding=1)
    layer = HadamardConv2d.like(dense, rank=4)
    before = np.linalg.norm(dense.weight.detach().numpy() - product(layer))

    errors = layer.fit_to(dense.weight, num_sweeps=6)

    norm = float(dense.weight.detach().norm())
    after = np.linalg.norm(dense.weight.detach().numpy() - product(layer))
    assert errors[0] == pytest.approx(before / norm, rel=1e-5)
    assert errors[-1] == pytest.approx(after / norm, rel=1e-5)
    assert all(later <= earlier for earlier, later in pairwise(errors))
    s = np.linalg.svd(dense.weight.detach().flatten(1).numpy(), compute_uv=False)
    assert errors[-1] < np.linalg.norm(s[4:]) / norm  # better than the low-rank start


def test_fit_finds_a_product_that_exists_and_continues_from_it():
    torch.manual_seed(1)
    target = HadamardConv2d(6, 8, 3, rank=2)
    layer = HadamardConv2d(6, 8, 3, rank=2)
    assert layer.fit_to(target.weight, num_sweeps=200)[-1] < 0.05

    exact = HadamardConv2d(6, 8, 3, rank=2)
    exact.load_state_dict(target.state_dict())
    assert max(exact.fit_to(target.weight, num_sweeps=2)) < 1e-6


def test_from_dense_and_export_are_one_function():
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 12, 3, stride=2, padding=1)
    layer = HadamardConv2d.from_dense(dense, rank=5)
    x = torch.randn(2, 8, 10, 10)

    exported = layer.to_dense()

    assert type(exported) is nn.Conv2d
    assert np.allclose(exported.weight.detach(), product(layer), rtol=1e-6, atol=1e-7)
    assert torch.allclose(exported(x), layer(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(exported.bias, dense.bias)
    assert layer.error(dense.weight) < 0.9


@pytest.mark.parametrize(
    ("out", "fan_in", "rank"),
    [
        (192, 1728, 32),  # as asked for: 122,880 of 331,776
        (24, 216, 2),  # 32 would be larger than dense; a quarter of 5,184 holds 2
        (2, 18, 0),  # no rank is small enough
    ],
)
def test_rank_limit(out, fan_in, rank):
    assert rank_limit(LayerShape(out, fan_in), 32) == rank


def test_plan_names_convolutions_by_their_endings():
    model = nn.ModuleDict({"conv1": nn.Conv2d(64, 64, 3), "other": nn.Conv2d(64, 64, 3)})

    assert plan_hadamard_ranks(model, 8, ["conv1"]) == {"conv1": 8}
    assert plan_hadamard_ranks(model, None, ["conv1"]) == {}
    with pytest.raises(DistilleryError, match="no convolution ends in conv9"):
        plan_hadamard_ranks(model, 8, ["conv9"])


def test_refuses_what_it_cannot_replace():
    with pytest.raises(DistilleryError, match="rank 0"):
        HadamardConv2d(4, 4, 3, rank=0)
    with pytest.raises(DistilleryError, match="ungrouped"):
        HadamardConv2d.like(nn.Conv2d(4, 4, 3, groups=2), 1)
    with pytest.raises(DistilleryError, match="own shape"):
        HadamardConv2d(4, 4, 3, rank=1).fit_to(torch.ones(4, 4, 1, 1))
    with pytest.raises(DistilleryError, match="zero"):
        HadamardConv2d(4, 4, 3, rank=1).fit_to(torch.zeros(4, 4, 3, 3))


def _count_products(layer: HadamardConv2d, monkeypatch) -> list[int]:
    made, multiply = [], HadamardConv2d.weight.fget
    spy = property(lambda self: made.append(1) or multiply(self))
    monkeypatch.setattr(HadamardConv2d, "weight", spy)
    return made


def test_in_evaluation_factors_are_multiplied_out_once(monkeypatch):
    torch.manual_seed(0)
    layer, x = HadamardConv2d(6, 10, 3, rank=4, padding=1), torch.randn(2, 6, 9, 9)
    expected = layer(x).detach()
    made = _count_products(layer, monkeypatch)
    layer.eval()
    with torch.no_grad():
        assert all(torch.equal(layer(x), expected) for _ in range(3))
        assert len(made) == 1
        layer.y2.mul_(2)  # other values, multiplied out again
        assert not torch.equal(layer(x), expected)
        assert len(made) == 2
        layer.double()
        assert layer(x.double()).dtype == torch.float64
    with torch.inference_mode():
        layer(x.double())
    assert len(made) == 3


def test_what_is_trained_is_multiplied_out_every_time(monkeypatch):
    layer, x = HadamardConv2d(6, 10, 3, rank=4), torch.randn(2, 6, 9, 9)
    made = _count_products(layer, monkeypatch)
    for _ in range(2):
        layer(x).sum().backward()
    layer.eval()
    layer(x).sum().backward()  # as in a validation that wants gradients
    assert len(made) == 3
    frozen = layer.requires_grad_(False)
    for _ in range(2):
        frozen(x)
    assert len(made) == 4
