"""The factored update against `torch.kron`, finite differences and a record of allocations."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillery.models.kronecker.ops import add_conv2d_update, add_linear_update, update_weight

GEOMETRIES = {
    "1x1": {"kernel_size": 1},
    "1x1 strided": {"kernel_size": 1, "stride": 2},
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "3x3 valid": {"kernel_size": 3},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "oblong": {"kernel_size": (3, 1), "padding": (1, 0), "stride": (1, 2)},
    "same": {"kernel_size": 3, "padding": "same"},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "stride": 2},
}


def factors(n, out, fan_in, r=3, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    shapes = (n, n, n), (n, out // n, r), (n, r, fan_in // n)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(**options)
        for shape in shapes
    ]


def kron_weight(a, u, v):
    return sum(torch.kron(a[i], u[i] @ v[i]) for i in range(len(a)))


def assert_same(ours, expected):
    assert ours.shape == expected.shape
    assert (ours - expected).norm() <= 1e-12 * expected.norm()


def conv_case(geometry, n, channels, out=8):
    conv = nn.Conv2d(channels, out, dtype=torch.float64, **geometry)
    fan_in = conv.weight[0].numel()
    x = torch.randn(3, channels, 7, 6, dtype=torch.float64)
    return conv, x, factors(n, out, fan_in)


def dense_conv(conv, x, weight):
    twin = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        padding_mode=conv.padding_mode,
        bias=False,
        dtype=torch.float64,
    )
    twin.weight = nn.Parameter(weight.reshape(twin.weight.shape))
    return twin(x)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (1, 24), (2, 3, 24)])
def test_linear_equals_kron(n, shape):
    a, u, v = factors(n, 18, 24)
    x = torch.randn(shape, dtype=torch.float64)
    result = torch.randn(*shape[:-1], 18, dtype=torch.float64)
    expected = result + x @ kron_weight(a, u, v).T
    assert_same(add_linear_update(result, x, a, u, v), expected)


def test_order_of_the_product_matters():
    a, u, v = factors(2, 4, 6)
    swapped = sum(torch.kron(u[i] @ v[i], a[i]) for i in range(2))
    assert not torch.allclose(update_weight(a, u, v), swapped)
    assert_same(update_weight(a, u, v), kron_weight(a, u, v))


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("channels", [8, 4])
def test_conv_equals_kron(geometry, channels):
    conv, x, (a, u, v) = conv_case(geometry, 4, channels)
    result = conv(x)
    expected = result + dense_conv(conv, x, kron_weight(a, u, v))
    assert_same(add_conv2d_update(result, x, a, u, v, conv), expected)


@pytest.mark.parametrize("name", ["3x3", "3x3 strided", "dilated", "same", "reflected"])
def test_conv_whose_channels_n_does_not_divide(name):
    conv, x, (a, u, v) = conv_case(GEOMETRIES[name], 3, 4, out=6)
    result = conv(x)
    expected = result + dense_conv(conv, x, kron_weight(a, u, v))
    assert_same(add_conv2d_update(result, x, a, u, v, conv), expected)


def test_inputs_that_are_not_contiguous():
    a, u, v = factors(2, 4, 6)
    x = torch.randn(6, 5, dtype=torch.float64).T
    result = torch.randn(4, 5, dtype=torch.float64).T
    assert_same(
        add_linear_update(result, x, a, u, v), result + x @ kron_weight(a, u, v).T.contiguous()
    )
    conv, x, (a, u, v) = conv_case(GEOMETRIES["3x3"], 2, 4)
    last = x.to(memory_format=torch.channels_last)
    assert_same(
        add_conv2d_update(conv(last), last, a, u, v, conv),
        add_conv2d_update(conv(x), x, a, u, v, conv),
    )


def test_linear_gradients_by_finite_differences():
    a, u, v = factors(2, 4, 6, r=2, requires_grad=True)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    result = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(add_linear_update, (result, x, a, u, v))


@pytest.mark.parametrize(("n", "channels"), [(2, 4), (3, 2)], ids=["convolved", "unfolded"])
def test_conv_gradients_by_finite_differences(n, channels):
    conv = nn.Conv2d(channels, 6, 3, stride=2, padding=1, dtype=torch.float64)
    a, u, v = factors(n, 6, channels * 9, r=2, requires_grad=True)
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64, requires_grad=True)

    def update(x, a, u, v):
        return add_conv2d_update(conv(x), x, a, u, v, conv)

    assert torch.autograd.gradcheck(update, (x, a, u, v))


class Sizes(TorchDispatchMode):
    """Records the number of elements of every tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.sizes, self.shapes = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.sizes.add(leaf.numel())
                self.shapes.add(tuple(leaf.shape))
        return result


def backward(result):
    functional.mse_loss(result, torch.zeros_like(result)).backward()


def test_nothing_of_the_weights_size_is_made_by_a_linear():
    a, u, v = factors(4, 64, 96, r=2, requires_grad=True)
    x = torch.randn(5, 96, dtype=torch.float64, requires_grad=True)
    with Sizes() as made:
        backward(add_linear_update(torch.zeros(5, 64, dtype=torch.float64), x, a, u, v))
    assert max(made.sizes) < 64 * 96 / 4
    assert v.grad.abs().max() > 0
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(("n", "channels"), [(4, 32), (3, 32)], ids=["convolved", "unfolded"])
def test_nothing_of_the_weights_size_is_made_by_a_conv(n, channels):
    conv = nn.Conv2d(channels, 48, 3, dtype=torch.float64).requires_grad_(False)
    a, u, v = factors(n, 48, channels * 9, r=2, requires_grad=True)
    x = torch.randn(1, channels, 4, 4, dtype=torch.float64, requires_grad=True)
    result = conv(x.detach())
    with Sizes() as made:
        backward(add_conv2d_update(result, x, a, u, v, conv))
    assert max(made.sizes) < conv.weight.numel() / 4
    assert u.grad.abs().max() > 0


def test_the_record_of_sizes_sees_a_materialised_update():
    a, u, v = factors(4, 64, 96, r=2, requires_grad=True)
    with Sizes() as made:
        backward(torch.randn(5, 96, dtype=torch.float64) @ update_weight(a, u, v).T)
    assert 64 * 96 in made.sizes
    assert (64, 96) in made.shapes
