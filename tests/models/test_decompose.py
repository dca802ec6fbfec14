import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.models.lowrank.decompose import decompose, output_error, singular_values

SHAPES = [(24, 40), (40, 24), (16, 16), (12, 5, 3, 3), (20, 2, 1, 1)]


def weight_of(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated_inputs(num_features, num_rows=400, seed=1):
    """Rows whose energy falls by a factor of about ten thousand over mixed directions."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(num_features, num_features, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0, -2, num_features, dtype=torch.float64)
    noise = torch.randn(num_rows, num_features, generator=generator, dtype=torch.float64)
    return noise * scales @ torch.linalg.qr(mix).Q


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_matches_the_library(shape):
    weight = weight_of(shape)
    rank = min(weight.flatten(1).shape) // 2
    a, b = decompose(weight, rank)
    u, s, vt = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    torch.testing.assert_close(a @ b, u[:, :rank] * s[:rank] @ vt[:rank], rtol=0, atol=1e-10)
    torch.testing.assert_close(a.norm(dim=0), s[:rank], rtol=1e-10, atol=0)
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(b @ b.T, identity, rtol=0, atol=1e-10)
    torch.testing.assert_close(singular_values(weight), s, rtol=1e-9, atol=0)


def test_full_rank_is_exact():
    weight = weight_of((9, 30))
    a, b = decompose(weight, 9)
    torch.testing.assert_close(a @ b, weight.double(), rtol=0, atol=1e-13)


def test_rank_deficient_weight_stays_finite_and_exact():
    weight = weight_of((12, 2)).double() @ weight_of((2, 20), seed=3).double()
    for candidate in (weight, torch.zeros(12, 20)):
        a, b = decompose(candidate, 6)
        assert bool(a.isfinite().all() and b.isfinite().all())
        torch.testing.assert_close(a @ b, candidate.double(), rtol=0, atol=1e-12)


def test_signs_do_not_depend_on_the_order_of_inputs():
    weight, order = weight_of((16, 40)), torch.arange(40).roll(7)
    a, b = decompose(weight, 8)
    a_shuffled, b_shuffled = decompose(weight[:, order], 8)
    torch.testing.assert_close(a_shuffled, a, rtol=0, atol=1e-9)
    torch.testing.assert_close(b_shuffled, b[:, order], rtol=0, atol=1e-9)
    assert bool((a.gather(0, a.abs().argmax(0, keepdim=True)) > 0).all())
    assert torch.equal(decompose(weight, 8).a, a)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_data_aware_is_the_optimum_of_the_whitened_problem(shape):
    weight, rows = weight_of(shape).double(), correlated_inputs(shape[1])
    moment = rows.T @ rows / len(rows)
    # The textbook way: truncate W M^(1/2), undo the whitening.
    values, vectors = torch.linalg.eigh(moment)
    root = vectors * values.sqrt() @ vectors.T
    u, s, vt = torch.linalg.svd(weight @ root, full_matrices=False)
    expected = u[:, :6] * s[:6] @ vt[:6] @ torch.linalg.inv(root)
    a, b = decompose(weight, 6, "data_aware", moment=moment, ridge=0.0)
    torch.testing.assert_close(a @ b, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(b @ b.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_moments_of_outputs_serve_as_well_as_those_of_inputs(ridge):
    weight, rows = weight_of((24, 40)).double(), correlated_inputs(40)
    moment = rows.T @ rows / len(rows)
    of_inputs = decompose(weight, 6, "data_aware", moment=moment, ridge=ridge)
    response = weight @ moment @ weight.T
    of_outputs = decompose(weight, 6, "data_aware", moment=response, ridge=ridge)
    product = of_inputs.a @ of_inputs.b
    torch.testing.assert_close(of_outputs.a @ of_outputs.b, product, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_data_aware_loses_less_output_than_svd(shape):
    weight, rows = weight_of(shape).double(), correlated_inputs(shape[1])
    moment = rows.T @ rows / len(rows)
    outputs = rows @ weight.T
    errors = {}
    for init in ("svd", "data_aware"):
        a, b = decompose(weight, 6, init, moment=moment)
        errors[init] = float((outputs - rows @ (a @ b).T).norm() / outputs.norm())
        factors = decompose(weight, 6, init, moment=moment)
        assert output_error(weight, factors, moment) == pytest.approx(errors[init], rel=1e-6)
        response = weight @ moment @ weight.T
        if shape[0] < shape[1]:
            assert output_error(weight, factors, response) == pytest.approx(errors[init], rel=1e-6)
    assert errors["data_aware"] < 0.6 * errors["svd"]


@pytest.mark.parametrize("size", [16, 30])
def test_without_data_the_ridge_gives_the_plain_svd(size):
    weight = weight_of((16, 30))
    nothing = torch.zeros(size, size, dtype=torch.float64)
    a, b = decompose(weight, 5, "data_aware", moment=nothing)
    plain = decompose(weight, 5)
    torch.testing.assert_close(a @ b, plain.a @ plain.b, rtol=0, atol=1e-9)


def test_unvisited_directions_keep_their_svd_order():
    # Inputs along the first axis only: a ridge ranks the other 19 by the weight itself.
    weight, moment = weight_of((20, 20)).double(), torch.zeros(20, 20, dtype=torch.float64)
    moment[0, 0] = 1.0
    a, b = decompose(weight, 8, "data_aware", moment=moment, ridge=1e-6)
    torch.testing.assert_close((a @ b)[:, 0], weight[:, 0], rtol=0, atol=1e-3)
    best = decompose(weight[:, 1:], 7)
    lost = (weight[:, 1:] - (a @ b)[:, 1:]).norm()
    assert lost <= 1.05 * (weight[:, 1:] - best.a @ best.b).norm()


def test_output_error_of_a_random_product_needs_moments_of_inputs():
    weight, rows = weight_of((12, 20)).double(), correlated_inputs(20)
    moment = rows.T @ rows / len(rows)
    factors = decompose(weight_of((12, 20), seed=5), 4)
    expected = float((rows @ (weight - factors.a @ factors.b).T).norm() / (rows @ weight.T).norm())
    assert output_error(weight, factors, moment) == pytest.approx(expected, rel=1e-6)
    assert output_error(weight, factors, weight @ moment @ weight.T) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "qr"}, "init 'qr' is unknown"),
        ({"rank": 13}, "rank 13 is outside 1 to 12"),
        ({"init": "data_aware"}, "needs the layer's second moment"),
        ({"init": "data_aware", "moment": torch.eye(7)}, "size 7 does not fit"),
    ],
)
def test_refuses_senseless_settings(arguments, message):
    with pytest.raises(DistilleryError, match=message):
        decompose(**{"weight": weight_of((12, 20)), "rank": 4, **arguments})


def test_refuses_a_weight_with_nan():
    weight = weight_of((4, 4))
    weight[1, 2] = torch.nan
    with pytest.raises(DistilleryError, match="NaN or infinite"):
        decompose(weight, 2)
