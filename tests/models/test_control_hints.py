"""Stacking condition maps, and what an adapter refuses."""

import pytest
import torch
from control_helpers import inputs
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.models.control_adapter.adapter import ControlAdapter
from tiny_models import tiny_unet


def test_maps_are_stacked_in_order_and_missing_ones_are_zeros():
    sketch = torch.rand(2, 3, 16, 16)
    hint = ControlAdapter.stack(sketch=sketch)
    assert torch.equal(hint[:, 3:6], sketch)
    assert not hint[:, :3].any()
    assert not hint[:, 6:].any()
    other = ControlAdapter.stack(kinds=("pose", "sketch"), sketch=sketch, pose=None)
    assert torch.equal(other, torch.cat([torch.zeros_like(sketch), sketch], 1))


def test_images_and_single_maps_are_taken():
    image = Image.new("RGB", (8, 4), (255, 0, 51))
    hint = ControlAdapter.stack(canny=image, segmentation=torch.ones(3, 4, 8))
    assert hint.shape == (1, 9, 4, 8)
    assert hint[0, :3, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


@pytest.mark.parametrize(
    ("maps", "reason"),
    [
        ({"depth": torch.zeros(3, 8, 8)}, "'depth' is unknown"),
        ({}, "no condition given"),
        ({"canny": torch.zeros(1, 8, 8)}, "give \\[n, 3, H, W\\]"),
        ({"canny": torch.zeros(3, 8, 8), "sketch": torch.zeros(3, 8, 9)}, "one batch and size"),
    ],
)
def test_bad_maps_are_named(maps: dict, reason: str):
    with pytest.raises(DistilleryError, match=reason):
        ControlAdapter.stack(**maps)


def test_sizes_and_channels_that_do_not_fit_are_refused():
    adapter = ControlAdapter.from_unet(tiny_unet())
    latents, timesteps, text, hint = inputs()
    for wrong, reason in (
        (hint[:, :, :40], "64 x 40 px; width and height must be multiples of 16"),
        (hint[:, :, :48], "fits latents of 8 x 6, not 8 x 8"),
        (hint[:, :3], "need 9 channels"),
        (torch.cat([hint, hint[:1]]), "3 hints for 2 samples"),
    ):
        with pytest.raises(DistilleryError, match=reason):
            adapter(latents, timesteps, text, wrong)
    adapter(latents, timesteps, text, hint[:1])


def test_other_sizes_work():
    adapter = ControlAdapter.from_unet(tiny_unet())
    latents, timesteps, text, hint = inputs(px=96)
    down, mid = adapter(latents[..., :6], timesteps, text, hint[..., :48], return_dict=False)
    assert down[0].shape[2:] == (12, 6)
    assert mid.shape[2:] == (6, 3)
