"""The noise plan: a pure function of (seed, key, slot), and standard normal."""

import numpy as np
import torch

from distillery.diffusion.noise import initial_noise, noise, noise_batch, timestep, timesteps


def test_noise_does_not_depend_on_the_batch() -> None:
    keys, slots = ["a", "b", "a", "c"], [0, 1, 2, 3]
    whole = noise_batch(7, keys, slots, (4, 8, 8))
    halves = [noise_batch(7, keys[i : i + 2], slots[i : i + 2], (4, 8, 8)) for i in (0, 2)]
    assert torch.equal(whole, torch.cat(halves))
    assert torch.equal(whole[1], noise(7, "b", 1, (4, 8, 8)))


def test_seed_key_slot_and_purpose_each_change_the_noise() -> None:
    first = noise(0, "a", 0, (64,))
    others = [
        noise(1, "a", 0, (64,)),
        noise(0, "b", 0, (64,)),
        noise(0, "a", 1, (64,)),
        initial_noise(0, "a", (64,)),
    ]
    assert all(not torch.equal(first, other) for other in others)


def test_noise_is_the_same_on_every_machine() -> None:
    expected = [0.1488, -0.2505, 0.8546, -1.3484]  # recorded once
    torch.testing.assert_close(noise(0, "key", 0, (4,)), torch.tensor(expected), atol=1e-4, rtol=0)


def test_noise_is_standard_normal_and_uncorrelated_between_slots() -> None:
    rows = noise_batch(3, ["x"] * 4, [0, 1, 2, 3], (20_000,))
    assert abs(rows.mean()) < 0.01
    assert abs(rows.std() - 1) < 0.01
    correlation = np.corrcoef(rows.numpy()) - np.eye(4)
    assert abs(correlation).max() < 0.03


def test_slots_are_strata_of_the_timesteps() -> None:
    drawn = timesteps(0, [f"k{i}" for i in range(500)], 4, 1000)
    for slot in range(4):
        assert drawn[:, slot].min() >= 250 * slot
        assert drawn[:, slot].max() < 250 * (slot + 1)
        assert len(np.unique(drawn[:, slot])) > 150
    assert drawn[3, 2] == timestep(0, "k3", 2, 4, 1000)
