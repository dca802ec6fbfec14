import pytest
import torch
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.layers import LayerShape, layer_shapes, low_rank_like

CONVS = [
    nn.Conv2d(6, 10, 3, padding=1),
    nn.Conv2d(6, 10, 3, padding=1, stride=2, bias=False),
    nn.Conv2d(6, 10, (3, 1), padding=(2, 0), dilation=2),
    nn.Conv2d(6, 10, 1),
    nn.Conv2d(6, 10, 3, padding=1, padding_mode="circular"),
]


@pytest.mark.parametrize("dense", CONVS, ids=range(len(CONVS)))
def test_conv_equals_the_dense_conv_of_its_merged_weight(dense):
    dense = dense.double()
    layer = low_rank_like(dense, 4)
    with torch.no_grad():
        dense.weight.copy_(layer.merged_weight())
        if dense.bias is not None:
            dense.bias.copy_(layer.bias)
        x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
        torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-12)
    assert (layer.bias is None) == (dense.bias is None)
    assert layer.reduce.bias is None


def test_linear_equals_the_dense_linear_of_its_merged_weight():
    dense = nn.Linear(7, 11, dtype=torch.float64)
    layer = low_rank_like(dense, 3)
    x = torch.randn(2, 5, 7, dtype=torch.float64)
    expected = nn.functional.linear(x, layer.merged_weight(), layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    assert (layer.in_features, layer.out_features, layer.rank) == (7, 11, 3)


def test_merging_half_precision_multiplies_in_single_precision():
    layer = low_rank_like(nn.Linear(512, 64, dtype=torch.float16), 32)
    exact = layer.expand.weight.double() @ layer.reduce.weight.double()
    merged = layer.merged_weight()
    assert merged.dtype == torch.float16
    assert torch.equal(merged, exact.half()) or (merged - exact).abs().max() < 2e-4


@pytest.mark.parametrize("dense", [nn.Linear(256, 320), nn.Conv2d(48, 320, 3)], ids=["fc", "conv"])
@pytest.mark.parametrize("rank", [16, 96])
def test_random_product_has_the_variance_of_the_default_initialisation(dense, rank):
    torch.manual_seed(0)
    layer = low_rank_like(dense, rank)
    variance = layer.merged_weight().var().item()
    assert variance == pytest.approx(1 / (3 * dense.weight[0].numel()), rel=0.1)
    assert variance == pytest.approx(dense.weight.var().item(), rel=0.1)
    assert layer.bias.abs().max() <= dense.weight[0].numel() ** -0.5


def test_copies_device_and_dtype():
    layer = low_rank_like(nn.Linear(8, 8, device="meta", dtype=torch.bfloat16), 2)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("rank", [0, 9, 2.0, True, None])
def test_refuses_a_rank_that_does_not_fit(rank):
    with pytest.raises(DistilleryError, match=r"mid\.fc: rank .* from 1 to 8"):
        low_rank_like(nn.Linear(8, 12), rank, "mid.fc")


@pytest.mark.parametrize("dense", [nn.Conv2d(8, 8, 3, groups=2), nn.Embedding(4, 4)])
def test_refuses_what_is_not_a_matrix(dense):
    with pytest.raises(DistilleryError, match="cannot be decomposed"):
        low_rank_like(dense, 1)


def test_shapes_are_those_of_the_reshaped_weights():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Linear(5, 2))
    assert layer_shapes(model) == {"0": LayerShape(6, 36), "2": LayerShape(2, 5)}
    assert LayerShape(6, 36).full_rank == 6
    assert LayerShape(6, 36).num_low_rank(2) == 84
