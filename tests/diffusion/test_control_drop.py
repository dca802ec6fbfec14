"""How often conditions and captions are left out, and that the step's seed decides it."""

import pytest
import torch

from distillery.diffusion.control_drop import Drop, apply_mask, single_conditions

PAPER = Drop(each=0.5, keep_all=0.1, drop_all=0.1, caption=0.5)


def test_rates_are_those_asked_for():
    torch.manual_seed(0)
    kept = PAPER.kept_conditions(40_000, 3)
    each = 0.8 * 0.5
    assert kept.float().mean(0).tolist() == pytest.approx([0.1 + each] * 3, abs=0.01)
    assert float(kept.all(1).float().mean()) == pytest.approx(0.1 + 0.8 / 8, abs=0.01)
    assert float((~kept).all(1).float().mean()) == pytest.approx(0.1 + 0.8 / 8, abs=0.01)
    assert float(PAPER.kept_captions(40_000).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_extremes():
    assert Drop(1.0, 1.0, 0.0, 0.0).kept_conditions(50, 2).all()
    assert not Drop(0.0, 0.0, 1.0, 0.0).kept_conditions(50, 2).any()
    assert Drop(0.0, 0.0, 0.0, 0.0).kept_conditions(50, 2).all()
    assert not Drop(0.0, 0.0, 0.0, 1.0).kept_captions(50).any()


def test_a_seed_gives_the_same_draws():
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append((PAPER.kept_conditions(20, 3), PAPER.kept_captions(20)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])


def test_masks_zero_whole_conditions():
    hint = torch.ones(4, 9, 2, 2)
    single = apply_mask(hint, single_conditions(4, 3))
    assert single.sum((2, 3)).gt(0).long().tolist() == [
        [1] * 3 + [0] * 6, [0] * 3 + [1] * 3 + [0] * 3, [0] * 6 + [1] * 3, [1] * 3 + [0] * 6
    ]  # fmt: skip
