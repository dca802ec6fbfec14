"""Recorded sampling gives the images of eager sampling, for every kind of step, once per shape."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_helpers import write_maps
from distillery.core.runtime import Runtime
from distillery.data.conditions.reader import ConditionMaps
from distillery.sampling import runtime
from distillery.sampling.sampler import Control, Sampler
from distillery.sampling.samples import Prompt
from fake_graphs import FakeGraphs, pretend_cuda
from tiny_models import tiny_controlnet

PROMPTS = [Prompt(f"{i:09d}", f"a red circle {'x' * i}", "canny") for i in range(5)]


@pytest.fixture
def control(sampler: Sampler, tmp_path: Path) -> Control:
    write_maps(tmp_path, "canny", [p.key for p in PROMPTS])
    controlnet = tiny_controlnet(sampler.teacher.unet)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # residuals start at zero
    return Control(controlnet, ConditionMaps(tmp_path, ["canny"], 64))


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("is_controlled", [False, True])
def test_recorded_steps_draw_what_eager_ones_draw(
    sampler: Sampler, control: Control, monkeypatch, scale: float, is_controlled: bool
):
    eager = replace(sampler, guidance_scale=scale, control=control if is_controlled else None)
    graphs = FakeGraphs()
    pretend_cuda(monkeypatch, runtime, graphs)
    recorded = replace(eager, runtime=Runtime("graph"))
    for batch in (PROMPTS[:2], PROMPTS[2:4], PROMPTS[4:]):  # two of one shape, one of another
        assert torch.equal(recorded.latents(batch), eager.latents(batch))
    assert graphs.num_recorded == 2
    assert graphs.num_warm_ups == 2
    assert graphs.num_replayed == 3 * 3 - 2


def test_every_model_records_its_own_step(sampler: Sampler, monkeypatch):
    graphs = FakeGraphs()
    pretend_cuda(monkeypatch, runtime, graphs)
    recorded = replace(sampler, runtime=Runtime("graph"))
    recorded.latents(PROMPTS[:1])
    other = recorded.with_unet(recorded.teacher.unet)
    assert other.latents(PROMPTS[:1]).isfinite().all()
    assert graphs.num_recorded == 2


def test_what_a_cpu_cannot_record_is_said_once(sampler: Sampler, capsys):
    asked = replace(sampler, runtime=Runtime("graph"))
    images = [asked.images(PROMPTS[:1]) for _ in range(2)]
    assert capsys.readouterr().err == (
        "runtime graph: CUDA graphs need a CUDA device, and this is cpu; running eagerly\n"
    )
    assert np.array_equal(images[0], sampler.images(PROMPTS[:1]))
