"""Training data of the scenes teacher: pools of drawn scenes.

In: a seed of the reserved range and a number of scenes. Out: arrays in memory. Drawing takes
about 1 ms per scene, so nothing is stored.
"""

from __future__ import annotations

import numpy as np

from distillery.core.progress import track
from distillery.data.scenes.draw import Scene, draw_scene


def draw_pool(seed: int, num_scenes: int, label: str) -> list[Scene]:
    """Scenes 0 to `num_scenes` - 1 of `seed`."""
    return [draw_scene(seed, index) for index in track(range(num_scenes), label, "scene")]


def unit_range(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1], as diffusers' VAEs take it."""
    return np.ascontiguousarray(images.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1)
