"""A teacher is loaded from safetensors, frozen, and encodes and decodes as the pipeline does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from distillery.core.errors import DistilleryError
from distillery.teacher.load import (
    alphas_cumprod,
    decode_latents,
    encode_images,
    encode_prompts,
    load_scheduler,
    load_teacher,
)


@pytest.fixture
def folder(tiny_teacher: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_teacher, tmp_path / "teacher")


def _change_scheduler(folder: Path, **values: object) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_teacher_is_frozen_and_agrees_with_the_pipeline(tiny_teacher: Path) -> None:
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    for module in (teacher.text_encoder, teacher.vae, teacher.unet):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_teacher, safety_checker=None)
    captions = ["a b", "", "word " * 100]
    wanted, _ = pipeline.encode_prompt(captions, "cpu", 1, False)
    torch.testing.assert_close(encode_prompts(teacher, captions), wanted)


def test_images_and_latents_are_scaled_as_in_the_pipeline(tiny_teacher: Path) -> None:
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    latents = encode_images(teacher, images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        mean = teacher.vae.encode(pixels).latent_dist.mean
        decoded = teacher.vae.decode(mean).sample
    torch.testing.assert_close(latents, mean * teacher.vae.config.scaling_factor)
    wanted = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    assert np.abs(decode_latents(teacher.vae, latents).astype(int) - wanted.numpy()).max() <= 1


def test_zero_terminal_snr_survives_any_sampler(folder: Path) -> None:
    assert float(alphas_cumprod(load_scheduler(folder))[-1]) > 0
    _change_scheduler(folder, _class_name="EulerDiscreteScheduler", rescale_betas_zero_snr=True)
    assert float(alphas_cumprod(load_scheduler(folder))[-1]) == 0.0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_eps_and_v_teachers_load(folder: Path, kind: str) -> None:
    _change_scheduler(folder, prediction_type=kind)
    assert load_scheduler(folder).config.prediction_type == kind


def test_another_prediction_is_refused(folder: Path) -> None:
    _change_scheduler(folder, prediction_type="sample")
    with pytest.raises(DistilleryError, match="'sample' is not supported"):
        load_scheduler(folder)


@pytest.mark.parametrize("component", ["tokenizer", "text_encoder", "vae", "unet", "scheduler"])
def test_a_missing_component_is_named(folder: Path, component: str) -> None:
    shutil.rmtree(folder / component)
    with pytest.raises(DistilleryError, match=component):
        load_teacher(folder, "cpu", torch.float32)


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(DistilleryError, match="unet"):
        load_teacher(folder, "cpu", torch.float32)
