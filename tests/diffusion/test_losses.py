"""Conversions and weights against direct computation, at zero terminal SNR too."""

import itertools

import pytest
import torch

from distillery.diffusion.losses import timestep_weights, weighted_mse
from distillery.diffusion.prediction import add_noise, alpha_sigma, convert, target

ALPHA_BAR = torch.linspace(0.999, 0.0, 50, dtype=torch.float64)
KINDS = ["constant", "truncated_snr", "min_snr", "snr_plus_one", "p2"]


@pytest.mark.parametrize(("source", "to"), list(itertools.product(["eps", "v", "x0"], repeat=2)))
def test_conversions_agree_with_the_definitions(source: str, to: str) -> None:
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 6, 1, 2, 2, dtype=torch.float64)
    alpha, sigma = alpha_sigma(ALPHA_BAR, torch.tensor([0, 5, 20, 30, 40, 48]))
    z = add_noise(x0, noise, alpha, sigma)
    given = target(x0, noise, alpha, sigma, source)
    wanted = target(x0, noise, alpha, sigma, to)
    torch.testing.assert_close(convert(given, z, alpha, sigma, source, to), wanted)


def test_v_gives_x0_and_eps_at_zero_terminal_snr() -> None:
    x0, noise = torch.randn(2, 1, 1, 2, 2, dtype=torch.float64)
    alpha, sigma = alpha_sigma(ALPHA_BAR, torch.tensor([49]))
    v, z = target(x0, noise, alpha, sigma, "v"), add_noise(x0, noise, alpha, sigma)
    torch.testing.assert_close(convert(v, z, alpha, sigma, "v", "x0"), x0)
    torch.testing.assert_close(convert(v, z, alpha, sigma, "v", "eps"), noise)


@pytest.mark.parametrize(
    ("native", "space"), list(itertools.product(["eps", "v"], ["eps", "v", "x0"]))
)
def test_constant_weight_is_the_mse_in_the_chosen_space(native: str, space: str) -> None:
    """Errors in the model's own space, weighted, equal plain errors after conversion."""
    torch.manual_seed(1)
    timesteps = torch.tensor([1, 10, 25, 44])
    alpha, sigma = alpha_sigma(ALPHA_BAR, timesteps)
    z, one, two = torch.randn(3, 4, 3, 2, 2, dtype=torch.float64)
    weights = timestep_weights(ALPHA_BAR, native, space=space, kind="constant", gamma=5.0)
    converted = [convert(p, z, alpha, sigma, native, space) for p in (one, two)]
    direct = (converted[0] - converted[1]).square().mean()
    torch.testing.assert_close(
        weighted_mse(one, two, weights[timesteps]).double(), direct, rtol=1e-5, atol=1e-7
    )


def test_weights_match_the_papers_formulas() -> None:
    snr = (ALPHA_BAR / (1 - ALPHA_BAR))[:-1]
    expected = {
        "constant": torch.ones_like(snr),
        "truncated_snr": (1 / snr).clamp(min=1),
        "min_snr": snr.clamp(max=5) / snr,
        "snr_plus_one": 1 + 1 / snr,
        "p2": 1 / (1 + snr) ** 5,
    }
    for kind, wanted in expected.items():
        got = timestep_weights(ALPHA_BAR, "eps", space="eps", kind=kind, gamma=5.0)[:-1]
        torch.testing.assert_close(got, wanted.float(), rtol=1e-5, atol=0)
    on_v = timestep_weights(ALPHA_BAR, "v", space="eps", kind="min_snr", gamma=5.0)[:-1]
    torch.testing.assert_close(on_v, (snr.clamp(max=5) / (snr + 1)).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "native"), list(itertools.product(KINDS, ["eps", "v"])))
@pytest.mark.parametrize("space", ["eps", "v", "x0"])
def test_weights_are_finite_everywhere(kind: str, native: str, space: str) -> None:
    weights = timestep_weights(ALPHA_BAR, native, space=space, kind=kind, gamma=5.0)
    assert bool(weights.isfinite().all())
    assert bool((weights > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_native_v_has_a_gradient_at_zero_terminal_snr(kind: str) -> None:
    weights = timestep_weights(ALPHA_BAR, "v", space="v", kind=kind, gamma=5.0)
    student = torch.zeros(1, 1, 2, 2, requires_grad=True)
    weighted_mse(student, torch.ones(1, 1, 2, 2), weights[-1:]).backward()
    assert float(student.grad.abs().min()) > 0.4
