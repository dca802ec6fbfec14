"""Weights in bfloat16: rounding is unbiased, small steps count, a resume goes on alike."""

from pathlib import Path

import pytest
import torch
from torch import nn

from distillery.train.rounding import RandomlyRoundedAdamW, narrow, round_at_random, widen
from toy import train

LR = {"lr": 1e-2, "betas": (0.9, 0.999), "weight_decay": 0.01}


def test_the_mean_of_rounding_is_the_value() -> None:
    """Within five standard errors, at both signs and over the range of exponents."""
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([1.0 + 1 / 512, -1.3, 3e-3, -7.77e-12, 1e-39, 1234.567, 0.1])
    count = 20_000
    drawn = round_at_random(values.repeat(count, 1), generator).double()
    assert all(len(column.unique()) == 2 for column in drawn.T)
    low, high = drawn.amin(0), drawn.amax(0)
    assert ((low < values) & (values < high)).all()
    error = (drawn.mean(0) - values.double()).abs()
    assert (error <= 5 * (high - low) / 2 / count**0.5).all()
    nearest = values.bfloat16().double()
    assert ((nearest - values.double()).abs() > 20 * error).sum() >= 5


def test_what_bfloat16_holds_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0.0, 1.0, -2.5, float("inf"), -float("inf"), float("nan")])
    rounded = round_at_random(values, generator).float()
    assert torch.equal(rounded[:5], values[:5])
    assert rounded[5].isnan()


def test_float32_weights_move_as_under_adamw() -> None:
    torch.manual_seed(0)
    start, moved = torch.randn(5, 3), []
    for kind in (RandomlyRoundedAdamW, torch.optim.AdamW):
        weight = nn.Parameter(start.clone())
        optimizer = kind([weight], **LR)
        for step in range(20):
            weight.grad = torch.sin(start * step + weight.detach())
            optimizer.step()
        moved.append(weight.detach())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-6, atol=1e-6)
    assert not torch.equal(moved[0], start)


@pytest.mark.parametrize("kind", [RandomlyRoundedAdamW, torch.optim.AdamW])
def test_steps_below_the_spacing_count_on_average(kind: type) -> None:
    """100 steps of 1e-4 from 1, where bfloat16 has a spacing of 1/256 below."""
    weight = nn.Parameter(torch.ones(4000, dtype=torch.bfloat16))
    optimizer = kind([weight], lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    went = 1 - float(weight.detach().float().mean())
    assert went == (pytest.approx(1e-2, rel=0.05) if kind is RandomlyRoundedAdamW else 0)


def test_matrices_are_narrowed_and_widened_again() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.GroupNorm(1, 3))
    narrow(model.parameters())
    assert [p.dtype for p in model.parameters()] == [torch.bfloat16, *[torch.float32] * 3]
    values = model[0].weight.detach().float()
    widen(model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model[0].weight, values)


def test_it_learns_in_bfloat16_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Killed at step 20, where the next checkpoint would be, and gone on."""
    changed = {"precision": "bf16", "weights": "bf16", "ema_decay": 0.0, "dropout": 0.2}
    whole, history = train(tmp_path / "whole", **changed)
    _, plain = train(tmp_path / "plain", **{**changed, "weights": "fp32"})
    losses, expected = ([e["loss"] for e in h["val"]] for h in (history, plain))
    assert losses == pytest.approx(expected, rel=0.01)
    assert losses[-1] < 0.95 * losses[0]
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    weights = whole.first.weight.detach()
    assert torch.equal(weights, weights.bfloat16().float())

    def stumble(model: nn.Module) -> dict[str, float]:
        if (tmp_path / "broken" / "step-00000014").is_dir():
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", validate=stumble, **changed)
    resumed, _ = train(tmp_path / "broken", **changed)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)
