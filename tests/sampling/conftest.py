"""A sampler of the tiny teacher."""

from pathlib import Path

import pytest
import torch

from distillery.sampling.sampler import Sampler
from distillery.teacher.load import load_teacher


@pytest.fixture(scope="module")
def sampler(tiny_teacher: Path) -> Sampler:
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    return Sampler(teacher, 3, 2.0, resolution_px=64, noise_seed=5)
