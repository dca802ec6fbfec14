from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from cache_helpers import write_maps
from distillery.core.errors import DistilleryError
from distillery.core.progress import bar, counting
from distillery.core.run import Run
from distillery.data.conditions.reader import ConditionMaps
from distillery.metrics.clip_score import CLIP_SCORE
from distillery.metrics.features import load_extractor
from distillery.metrics.meter import Chunk, Tools
from distillery.metrics.meters import SET_METERS
from distillery.metrics.stream import Pass, set_estimates
from distillery.models.load import seed_folder
from distillery.sampling.sampler import Control, Sampler, write_samples
from distillery.sampling.samples import (
    Prompt,
    decode_png,
    encode_png,
    pick_prompts,
    read_samples,
    sample_folders,
    with_conditions,
)
from distillery.teacher.load import encode_prompts
from tiny_models import tiny_controlnet

PROMPTS = [Prompt(f"{i:09d}", f"a red circle {'x' * i}") for i in range(6)]


def test_samples_are_those_of_the_pipeline(sampler: Sampler):
    teacher = sampler.teacher
    scheduler = DDIMScheduler.from_config(
        teacher.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    pipeline = StableDiffusionPipeline(
        vae=teacher.vae, text_encoder=teacher.text_encoder, tokenizer=teacher.tokenizer,
        unet=teacher.unet, scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    prompts = PROMPTS[:2]
    expected = pipeline(
        prompt_embeds=encode_prompts(teacher, [p.caption for p in prompts]),
        negative_prompt_embeds=encode_prompts(teacher, ["", ""]),
        latents=sampler.noise(prompts), height=64, width=64, num_inference_steps=3,
        guidance_scale=2.0, output_type="np",
    ).images  # fmt: skip
    difference = sampler.images(prompts).astype(int) - (expected * 255).round().astype(int)
    assert np.abs(difference).max() <= 1


def test_noise_is_bit_identical_whatever_the_batch(sampler: Sampler):
    together = sampler.noise(PROMPTS)
    alone = torch.cat([sampler.noise([prompt]) for prompt in reversed(PROMPTS)])
    assert torch.equal(together, alone.flip(0))
    assert not torch.equal(together, replace(sampler, noise_seed=6).noise(PROMPTS))


def test_images_hardly_depend_on_the_batch_size(sampler: Sampler):
    together = sampler.images(PROMPTS).astype(int)
    alone = np.concatenate([sampler.images([prompt]) for prompt in PROMPTS]).astype(int)
    difference = np.abs(together - alone)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001


def test_metrics_hardly_depend_on_the_batch_size(sampler: Sampler, tiny_teacher: Path):
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    tools = Tools(clip, clip, "a photo of ", num_bootstrap=200, num_blocks=3)
    captions = [prompt.caption for prompt in PROMPTS]
    one = sampler.images(PROMPTS)
    other = np.concatenate([sampler.images(PROMPTS[:4]), sampler.images(PROMPTS[4:])])
    real = np.random.default_rng(0).integers(0, 256, one.shape, dtype=np.uint8)
    features, results = clip.image_features(real), []
    for images in (one, other):
        run = Pass(len(images), [CLIP_SCORE], tools, keeps_features=True)
        means, _ = run.run([Chunk(range(len(images)), images, captions)]).means()
        results.append(means | set_estimates(SET_METERS, run.features, features, tools, "real"))
    for name, (estimate, _) in results[0].items():
        moved = abs(estimate.value - results[1][name][0].value)
        assert moved < 0.01 * (estimate.ci_high - estimate.ci_low), name


def test_guidance_scale_one_is_without_guidance(sampler: Sampler):
    plain = replace(sampler, guidance_scale=1.0).images(PROMPTS[:1])
    nearly = replace(sampler, guidance_scale=1.0 + 1e-6).images(PROMPTS[:1])
    assert np.abs(plain.astype(int) - nearly.astype(int)).max() <= 1
    assert (plain != sampler.images(PROMPTS[:1])).any()


def test_written_samples_are_read_and_picked_up(sampler: Sampler, tmp_path: Path):
    run, folder = Run("generate/x", "f" * 64, tmp_path / "work"), tmp_path / "samples" / "seed-3"
    with bar(3 * sampler.num_inference_steps, "x") as shown, counting(shown):
        write_samples(folder, sampler, PROMPTS[:3], 2, run)
        assert shown.n == shown.total
    rows = read_samples(folder)
    assert [row["key"] for row in rows] == [p.key for p in PROMPTS[:3]]
    assert [decode_png(row["image"]).shape for row in rows] == [(64, 64, 3)] * 3
    assert sample_folders(folder.parent) == {3: folder}
    first = (folder / "00000.parquet").read_bytes()
    broken = replace(sampler, num_inference_steps=0)
    write_samples(folder, broken, PROMPTS[:3], 2, run)
    assert (folder / "00000.parquet").read_bytes() == first


def test_fewer_prompts_are_a_part_of_more():
    few, many = pick_prompts(PROMPTS[::-1], 2), pick_prompts(PROMPTS, 5)
    assert many[:2] == few
    with pytest.raises(DistilleryError, match="test split"):
        pick_prompts([], 3)


def test_where_models_and_samples_lie(tmp_path: Path):
    assert seed_folder(tmp_path, 0, [0, 1]) == tmp_path
    assert seed_folder(tmp_path, 1, [0, 1]) == tmp_path / "seed-1"
    with pytest.raises(DistilleryError, match="no seed-"):
        sample_folders(tmp_path)


def test_png_is_lossless():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (decode_png(encode_png(image)) == image).all()


def test_controlled_samples_are_those_of_the_pipeline(sampler: Sampler, tmp_path: Path):
    teacher, prompts = sampler.teacher, [replace(p, condition="canny") for p in PROMPTS[:2]]
    maps = write_maps(tmp_path, "canny", [p.key for p in prompts])
    controlnet = tiny_controlnet(sampler.teacher.unet)
    control = Control(controlnet, ConditionMaps(tmp_path, ["canny"], 64))
    scheduler = DDIMScheduler.from_config(
        teacher.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    pipeline = StableDiffusionControlNetPipeline(
        vae=teacher.vae, text_encoder=teacher.text_encoder, tokenizer=teacher.tokenizer,
        unet=teacher.unet, controlnet=controlnet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=encode_prompts(teacher, [p.caption for p in prompts]),
        negative_prompt_embeds=encode_prompts(teacher, ["", ""]),
        image=[Image.fromarray(image) for image in maps],
        latents=sampler.noise(prompts), height=64, width=64, num_inference_steps=3,
        guidance_scale=2.0, output_type="np",
    ).images  # fmt: skip
    made = replace(sampler, control=control).images(prompts)
    assert np.abs(made.astype(int) - (expected * 255).round().astype(int)).max() <= 1
    assert (made != sampler.images(prompts)).any()


def test_a_hint_holds_each_prompts_own_map_and_zeros(sampler: Sampler, tmp_path: Path):
    keys = [p.key for p in PROMPTS[:4]]
    maps = {kind: write_maps(tmp_path, kind, keys) for kind in ("canny", "sketch")}
    prompts = with_conditions(PROMPTS[:4], ["canny", "sketch"])
    assert [p.condition for p in prompts] == ["canny", "sketch", "canny", "sketch"]
    control = Control(
        tiny_controlnet(sampler.teacher.unet), ConditionMaps(tmp_path, ["canny", "sketch"], 64)
    )
    hint = control.hint(prompts).numpy()
    assert hint.shape == (4, 6, 64, 64)
    for row, prompt in enumerate(prompts):
        own = slice(0, 3) if prompt.condition == "canny" else slice(3, 6)
        expected = maps[prompt.condition][row].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(hint[row, own], expected, atol=1e-6)
        assert hint[row].sum() == pytest.approx(hint[row, own].sum())


def test_whose_turn_lacks_a_map_takes_the_next_kind_or_is_left_out():
    has = {"canny": {"k0", "k1"}, "depth": {"k1", "k3"}}
    prompts = [Prompt(f"k{i}", "") for i in range(4)]
    own = with_conditions(prompts, ["canny", "depth"], lambda kind, key: key in has[kind])
    assert [(p.key, p.condition) for p in own] == [
        ("k0", "canny"), ("k1", "depth"), ("k3", "depth")
    ]  # fmt: skip


def test_a_record_without_a_map_is_named(tmp_path: Path):
    write_maps(tmp_path, "canny", ["a"])
    maps = ConditionMaps(tmp_path, ["canny"], 64)
    with pytest.raises(DistilleryError, match="no canny map of b"):
        maps.images("canny", ["a", "b"])
    with pytest.raises(DistilleryError, match="no sketch maps; add sketch"):
        ConditionMaps(tmp_path, ["sketch"], 64)
