"""Condition maps stacked into one hint tensor, and the check of what an adapter is given.

In: maps by kind. Out: one tensor, or an error that says what fits. Maps are made elsewhere.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillery.core.errors import DistilleryError

# What an adapter takes that is not told its kinds; the pipeline always tells (`data.conditions`).
KINDS = ("canny", "sketch", "segmentation")
VAE_SCALE = 8


def stack(kinds: Sequence[str], maps: Mapping[str, Tensor | Image.Image | None]) -> Tensor:
    """See `ControlAdapter.stack`."""
    if unknown := sorted(set(maps) - set(kinds)):
        raise DistilleryError(
            f"condition {unknown[0]!r} is unknown; this adapter has {', '.join(kinds)}"
        )
    given = {kind: _tensor(kind, value) for kind, value in maps.items() if value is not None}
    if not given:
        raise DistilleryError(f"no condition given; name at least one of {', '.join(kinds)}")
    first = next(iter(given.values()))
    for kind, value in given.items():
        if value.shape != first.shape:
            raise DistilleryError(
                f"condition {kind}: {tuple(value.shape)} given, others {tuple(first.shape)}; "
                "give maps of one batch and size"
            )
    return torch.cat([given.get(kind, torch.zeros_like(first)) for kind in kinds], dim=1)


def _tensor(kind: str, value: Tensor | Image.Image) -> Tensor:
    if isinstance(value, Image.Image):
        pixels = np.asarray(value.convert("RGB"), dtype=np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)[None]
    value = value[None] if value.ndim == 3 else value
    if value.ndim != 4 or value.shape[1] != 3:
        raise DistilleryError(
            f"condition {kind}: shape {tuple(value.shape)}; give [n, 3, H, W] in [0, 1]"
        )
    return value


def check_hint(hint: Tensor, sample: Tensor, kinds: Sequence[str], num_levels: int) -> None:
    """Raises DistilleryError unless `hint` fits the latents `sample` and the U-Net's levels."""
    if hint.ndim != 4 or hint.shape[1] != 3 * len(kinds):
        raise DistilleryError(
            f"control: hint of shape {tuple(hint.shape)}, but {', '.join(kinds)} need "
            f"{3 * len(kinds)} channels; make it with ControlAdapter.stack"
        )
    if len(hint) not in (1, len(sample)):
        raise DistilleryError(
            f"control: {len(hint)} hints for {len(sample)} samples; give as many, or one"
        )
    step = VAE_SCALE * 2 ** (num_levels - 1)
    height, width = hint.shape[2:]
    if height % step or width % step:
        raise DistilleryError(
            f"control: condition of {width} x {height} px; width and height must be multiples "
            f"of {step}"
        )
    fits = (height // VAE_SCALE, width // VAE_SCALE)
    if fits != tuple(sample.shape[2:]):
        raise DistilleryError(
            f"control: condition of {width} x {height} px fits latents of {fits[1]} x {fits[0]}, "
            f"not {sample.shape[3]} x {sample.shape[2]}; give maps of the image's size"
        )
