"""The adapter in the ControlNet pipeline: its conditions, several adapters, a fresh process."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from control_helpers import KRONECKER, inputs, low_rank_unet, trained
from diffusers import MultiControlNetModel, StableDiffusionControlNetPipeline
from safetensors.torch import save_file

from distillery.models.control_adapter.adapter import ControlAdapter
from project import ROOT
from tiny_models import tiny_pipeline

CALL = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionControlNetPipeline:
    """A low-rank U-Net under an adapter whose zero convolutions are not zero."""
    parts = tiny_pipeline().components | {"unet": low_rank_unet()}
    parts.pop("image_encoder", None)
    adapter = trained(ControlAdapter.from_unet(parts["unet"], kronecker=KRONECKER)).eval()
    made = StableDiffusionControlNetPipeline(
        **parts, controlnet=adapter, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def _maps(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kinds = ("canny", "sketch", "segmentation")
    return {kind: torch.rand(1, 3, 64, 64, generator=generator) for kind in kinds}


def _draw(pipeline, hint, prompt="abc", **changed) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return pipeline(prompt, image=hint, generator=generator, **{**CALL, **changed}).images


def test_one_two_and_three_conditions(pipeline):
    maps = _maps()
    images = [
        _draw(pipeline, ControlAdapter.stack(**{kind: maps[kind] for kind in list(maps)[:count]}))
        for count in (1, 2, 3)
    ]
    assert all(image.shape == (1, 64, 64, 3) for image in images)
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])


def test_scale_zero_is_no_control(pipeline):
    hints = [ControlAdapter.stack(**_maps(seed)) for seed in (0, 1)]
    without = [_draw(pipeline, hint, controlnet_conditioning_scale=0.0) for hint in hints]
    assert np.array_equal(*without)
    assert not np.array_equal(without[0], _draw(pipeline, hints[0]))


def test_each_prompt_has_its_hint_and_guess_mode_runs(pipeline):
    hint = torch.cat([ControlAdapter.stack(**_maps(seed)) for seed in (0, 1)])
    images = _draw(pipeline, hint, ["abc", "abc"], guess_mode=True)
    assert len(images) == 2


def test_two_adapters_add_up(pipeline):
    hint = ControlAdapter.stack(**_maps())
    once = _draw(pipeline, hint)
    several = MultiControlNetModel([pipeline.controlnet, pipeline.controlnet])
    both = StableDiffusionControlNetPipeline(
        **{**pipeline.components, "controlnet": several}, requires_safety_checker=False
    )
    both.set_progress_bar_config(disable=True)
    halves = _draw(both, [hint, hint], controlnet_conditioning_scale=[0.5, 0.5])
    np.testing.assert_allclose(halves, once, atol=1e-4)


_FRESH = """
import sys, torch
from safetensors.torch import load_file
from diffusers import StableDiffusionControlNetPipeline
import distillery.models.control_adapter.adapter  # diffusers imports no module that a folder names
folder = sys.argv[1]
pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, safety_checker=None)
adapter = pipeline.controlnet
given = load_file(folder + "/given.safetensors")
with torch.no_grad():
    output = adapter(*(given[str(i)] for i in range(4))).mid_block_res_sample
size = given["output"].abs().max()  # weights that lie elsewhere in memory may round otherwise
assert size > 0
assert (output - given["output"]).abs().max() <= 1e-5 * size
assert type(adapter).__name__ == "ControlAdapter", type(adapter)
"""


def test_a_saved_pipeline_loads_in_a_fresh_process(pipeline, tmp_path: Path, python: Path):
    pipeline.save_pretrained(tmp_path)
    arguments = inputs()
    with torch.no_grad():
        output = pipeline.controlnet(*arguments).mid_block_res_sample
    given = {str(number): value for number, value in enumerate(arguments)}
    save_file({**given, "output": output}, tmp_path / "given.safetensors")
    command = [python / "python", "-c", _FRESH, tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
