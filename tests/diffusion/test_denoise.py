"""One call for every network: arguments, dtypes, residuals in their places."""

import pytest
import torch

from distillery.diffusion.conditioning import chosen, repeated, stacked
from distillery.diffusion.denoise import control_residuals, denoise
from tiny_models import tiny_controlnet, tiny_unet, unet_inputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_controlled_evaluation_is_that_of_diffusers(dtype: torch.dtype) -> None:
    """What is told and the residuals are cast to the latents' dtype."""
    unet = tiny_unet().to(dtype)
    controlnet = tiny_controlnet(tiny_unet()).to(dtype)
    sample, timestep, text = unet_inputs().values()
    sample, hint = sample.to(dtype), torch.rand(2, 3, 64, 64)
    down, mid = controlnet(
        sample, timestep, text.to(dtype), controlnet_cond=hint.to(dtype), return_dict=False
    )
    residuals = control_residuals(controlnet, sample, timestep, {"text": text}, hint)
    assert all(torch.equal(a, b) for a, b in zip(residuals, [*down, mid], strict=True))
    wanted = unet(
        sample, timestep, text.to(dtype), down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
    ).sample  # fmt: skip
    wide = [residual.float() for residual in residuals]
    output = denoise(unet, sample, timestep, {"text": text}, wide)
    assert output.dtype == dtype
    assert torch.equal(output, wanted)
    assert not torch.equal(output, denoise(unet, sample, timestep, {"text": text}))


@torch.no_grad()
def test_a_scale_reaches_the_unet() -> None:
    unet = tiny_unet(time_cond_proj_dim=4)
    sample, timestep, text = unet_inputs().values()
    told = {"text": text, "scale": torch.ones(2, 4)}
    output = denoise(unet, sample, timestep, told)
    wanted = unet(sample, timestep, text, timestep_cond=told["scale"]).sample
    assert torch.equal(output, wanted)
    assert not torch.equal(output, unet(sample, timestep, text).sample)


def test_conditioning_is_repeated_stacked_and_chosen() -> None:
    rows = {"text": torch.arange(12.0).view(3, 2, 2), "scale": torch.ones(3, 4)}
    single = {"text": torch.full((1, 2, 2), 7.0), "scale": torch.zeros(1, 4)}
    empty = repeated(single, rows)
    assert {name: value.shape for name, value in empty.items()} == {
        name: value.shape for name, value in rows.items()
    }
    assert stacked(rows, empty)["text"].shape == (6, 2, 2)
    mixed = chosen(torch.tensor([True, False, True]), rows, empty)
    assert torch.equal(mixed["text"][1], single["text"][0])
    assert torch.equal(mixed["text"][2], rows["text"][2])
    assert mixed["scale"].sum(1).tolist() == [4, 0, 4]
