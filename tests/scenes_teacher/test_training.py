"""The scenes teacher's training, in its short form, and the teacher that ships."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import ControlNetModel, StableDiffusionPipeline
from torch import nn
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from distillery.core.errors import DistilleryError
from distillery.data.scenes.draw import draw_scene
from distillery.diffusion.batch import Batch
from distillery.scenes_teacher import measure, training
from distillery.scenes_teacher.pool import unit_range
from distillery.scenes_teacher.recipe import (
    RECIPE,
    check_recipe,
    claim_work,
    train_scenes_teacher,
)
from distillery.scenes_teacher.tokens import build_tokenizer, tokenize
from distillery.scenes_teacher.training import Inputs, settings_of, train
from distillery.scenes_teacher.unet import build_scheduler, diffusion_of
from distillery.scenes_teacher.vae import build_vae

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data" / "scenes-sd"
KINDS = ("canny", "sketch", "segmentation", "depth")


@pytest.fixture(scope="module")
def recipe() -> dict:
    """The shipped recipe, cut down to two steps of each training on a few scenes."""
    parts = yaml.safe_load(RECIPE.read_text())["recipe"]
    parts["tokenizer"]["num_captions"] = 60
    parts["vae"] |= {"num_pca_scenes": 48, "num_scenes": 16, "batch_size": 2, "num_steps": 2}
    parts["clip"] |= {"num_scenes": 16, "batch_size": 4, "image_layers": 1, "num_probe_scenes": 40}
    parts["clip"]["phases"] = [{"num_groups": n, "num_steps": 1, "lr": 0.001} for n in (0, 2)]
    parts["unet"] |= {"num_scenes": 32, "batch_size": 4, "num_steps": 2, "channels": [16, 32]}
    phases = {key: [{"num_steps": 2, "lr": 0.001}] for key in KINDS}
    parts["controlnet"] |= {"num_scenes": 8, "batch_size": 2, "phases": phases}
    return parts


@pytest.fixture(scope="module")
def teacher(recipe, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("teacher")
    train_scenes_teacher(recipe, base / "out", base / "work", num_threads=1, seed=0, device="cpu")
    return base / "out"


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_folder_loads_as_a_pipeline_and_draws(teacher):
    pipeline = StableDiffusionPipeline.from_pretrained(teacher, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float32}
    assert {p.dtype for p in pipeline.text_encoder.parameters()} == {torch.float32}
    image = pipeline("a red circle", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    assert np.isfinite(image).all()


def test_controlnets_and_clip_load(teacher):
    for kind in KINDS:
        assert ControlNetModel.from_pretrained(teacher / f"controlnet_{kind}").dtype
    clip = CLIPModel.from_pretrained(teacher / "clip")
    assert clip.dtype == torch.float32
    processor = CLIPImageProcessor.from_pretrained(teacher / "clip")
    image = draw_scene(3, 0).image
    pixels = processor(images=image, return_tensors="pt").pixel_values
    assert torch.allclose(pixels, torch.from_numpy(unit_range(image[None])), atol=1e-5)
    tokens = CLIPTokenizer.from_pretrained(teacher / "clip")
    assert clip(input_ids=tokenize(tokens, ["a star"]), pixel_values=pixels).logits_per_image.shape


def test_the_same_recipe_gives_the_same_bytes(teacher, recipe, tmp_path):
    train_scenes_teacher(
        recipe, tmp_path / "out", tmp_path / "work", num_threads=1, seed=0, device="cpu"
    )
    assert _hashes(tmp_path / "out") == _hashes(teacher)
    assert not [name for name in _hashes(teacher) if name.endswith((".bin", ".pt", ".ckpt"))]


def test_every_part_but_the_vae_is_stored_in_half_precision(teacher):
    from safetensors import safe_open

    for path in sorted(teacher.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        assert (kinds <= {"F16", "I64"}) == (path.parent.name != "vae"), path


def test_the_encoder_is_the_projection():
    images = unit_range(np.stack([draw_scene(3, index).image for index in range(40)]))
    vae, pca = build_vae(images, num_latents=16, whitening=0.6, seed=0)
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(images)).latent_dist.mode().numpy()
    assert np.abs(latents - pca.encode(images)).max() < 0.01
    assert (latents * vae.config.scaling_factor).std() == pytest.approx(1.0, abs=0.01)
    restored = pca.decode(pca.encode(images))
    assert 10 * np.log10(4 / ((restored - images) ** 2).mean()) > 24


def _train_line(folder: Path, fail_at: int | None, num_steps: int = 12) -> torch.Tensor:
    torch.manual_seed(0)
    line = nn.Linear(3, 1)

    def draw(step: int, generator: torch.Generator) -> Inputs:
        if step == fail_at:
            raise KeyboardInterrupt
        return Inputs(x=torch.randn(8, 3, generator=generator))

    def objective(model: nn.Module, inputs: Inputs) -> dict[str, torch.Tensor]:
        error = model(inputs["x"]) - inputs["x"].sum(1, keepdim=True)
        return {"squared": error.square().mean()}

    part = {"batch_size": 8, "warmup_steps": 2, "ema_decay": 0.9}
    settings = settings_of(part, {"num_steps": num_steps, "lr": 0.1})
    train(line, objective, draw, settings, folder=folder, seed=1)
    return line.weight.detach()


def test_a_killed_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_STEPS", 2)
    expected = _train_line(tmp_path / "whole", None)
    for fail_at in (3, 7, 11):
        with pytest.raises(KeyboardInterrupt):
            _train_line(tmp_path / "cut", fail_at)
    assert torch.equal(_train_line(tmp_path / "cut", None), expected)
    assert torch.equal(_train_line(tmp_path / "cut", None), expected)


def test_the_learning_rate_ends_at_its_floor():
    settings = settings_of({"batch_size": 8, "warmup_steps": 2}, {"num_steps": 12, "lr": 0.1})
    rates = [settings.learning_rate_at(step) for step in (0, 1, 2, 7, 12)]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.051, 0.002])


def test_tokenizer_knows_the_words_and_spells_the_rest(tmp_path):
    captions = [draw_scene(4, index).caption for index in range(300)]
    tokenizer = build_tokenizer(captions, 32)
    for caption in captions:
        words = caption.replace(",", " ,").split()
        assert [token.removesuffix("</w>") for token in tokenizer.tokenize(caption)] == words
    assert "".join(tokenizer.tokenize("Zürich ☃")).count("</w>") == 2
    assert tokenizer.unk_token_id not in tokenizer("a zebra", add_special_tokens=False).input_ids
    assert tokenize(tokenizer, ["word " * 10_000]).shape == (1, 32)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert torch.equal(tokenize(again, captions), tokenize(tokenizer, captions))


def test_targets_and_weights_at_zero_snr():
    diffusion = diffusion_of({"min_snr_gamma": 5.0})
    latents, noise = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    last = Batch(["a"], latents, noise, torch.tensor([999]), {})
    assert torch.allclose(diffusion.noisy(last), noise, atol=1e-3)
    assert torch.allclose(diffusion.target(last), -latents, atol=1e-3)
    first, end = diffusion.weights[[0, 999]].tolist()
    assert end == pytest.approx(0.001, rel=0.01)  # the floor of the SNR
    assert 0 < first < 0.01
    middle = dataclasses.replace(last, timesteps=torch.tensor([500]))
    scheduler_v = build_scheduler().get_velocity(latents, noise, middle.timesteps)
    assert torch.allclose(diffusion.target(middle), scheduler_v)


def test_seeds_outside_of_the_reserved_range_are_refused(recipe):
    check_recipe(recipe)
    with pytest.raises(DistilleryError, match=r"clip\.scenes_seed"):
        check_recipe(recipe | {"clip": recipe["clip"] | {"scenes_seed": 5}})


def test_work_of_another_recipe_is_refused(recipe, tmp_path):
    claim_work("clip", recipe, tmp_path, seed=0)
    claim_work("clip", recipe | {"vae": {}}, tmp_path, seed=0)
    with pytest.raises(DistilleryError, match="another recipe or seed"):
        claim_work("clip", recipe | {"clip": {"num_steps": 1}}, tmp_path, seed=0)
    with pytest.raises(DistilleryError, match="another recipe or seed"):
        claim_work("clip", recipe, tmp_path, seed=1)


def test_the_shipped_teacher_is_small_and_its_own_recipe_s():
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*.safetensors")]
    assert len(sizes) == 8
    assert sum(sizes) <= 24_000_000
    channels = yaml.safe_load(RECIPE.read_text())["recipe"]["unet"]["channels"]
    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED, safety_checker=None)
    assert list(pipeline.unet.config.block_out_channels) == channels
    assert pipeline.unet.config.layers_per_block == 2
    assert 2_000_000 <= pipeline.unet.num_parameters() <= 4_000_000


def test_the_shipped_teacher_draws_what_is_asked_for():
    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    scenes = measure.pick_scenes(32, 1)
    images = measure.generate(pipeline, scenes, None, guidance=3.0, num_steps=12)
    recalls = measure.mean_recalls(images, scenes)
    assert recalls["reader_colour"] >= 0.9
    assert recalls["reader_shape"] >= 0.75
