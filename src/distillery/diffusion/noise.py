"""The noise plan: noise and timesteps as a function of (seed, sample key, slot), never stored.

In: the run's seed, a sample's key, a slot. Out: the same float32 noise and the same timestep on
every machine, device, worker and batch size, because each record has its own counter-based Philox
stream (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"). Not here: what is done
with the noise.

Cost: about 25 us for 1,024 numbers and 150 us for 16,384 (a latent at 512 px) on one core.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def _stream(purpose: str, seed: int, key: str, slot: int) -> np.random.Generator:
    name = f"{purpose}\n{seed}\n{slot}\n{key}".encode()
    counter_key = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=counter_key))


def noise(seed: int, key: str, slot: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise of one sample at one slot, float32 `shape`, on the CPU."""
    stream = _stream("noise", seed, key, slot)
    return torch.from_numpy(stream.standard_normal(tuple(shape), dtype=np.float32))


def noise_batch(
    seed: int, keys: Sequence[str], slots: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """Noise of several (key, slot) pairs, float32 [len(keys), *shape]; row i is `noise(...)`."""
    rows = np.empty((len(keys), *shape), dtype=np.float32)
    for row, key, slot in zip(rows, keys, slots, strict=True):
        _stream("noise", seed, key, int(slot)).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(rows)


def timestep(seed: int, key: str, slot: int, num_slots: int, num_train_timesteps: int) -> int:
    """Timestep of a slot: uniform in [slot, slot + 1) * num_train_timesteps / num_slots.

    The slots of one sample are strata: together they cover all noise levels (the antithetic
    sampling of Kingma et al. 2021, "Variational Diffusion Models", I.1, per sample).
    """
    if not 0 <= slot < num_slots:
        raise ValueError(f"slot {slot} is not in 0..{num_slots - 1}")
    u = float(_stream("timestep", seed, key, slot).random())
    return min(math.floor((slot + u) * num_train_timesteps / num_slots), num_train_timesteps - 1)


def timesteps(
    seed: int, keys: Sequence[str], num_slots: int, num_train_timesteps: int
) -> np.ndarray:
    """Timesteps of all slots of several samples, int64 [len(keys), num_slots]."""
    rows = [
        [timestep(seed, key, slot, num_slots, num_train_timesteps) for slot in range(num_slots)]
        for key in keys
    ]
    return np.array(rows, dtype=np.int64).reshape(len(keys), num_slots)


def initial_noise(seed: int, key: str, shape: Sequence[int]) -> Tensor:
    """Noise that generation starts from, float32 `shape`; no training slot ever has it."""
    stream = _stream("initial", seed, key, 0)
    return torch.from_numpy(stream.standard_normal(tuple(shape), dtype=np.float32))
