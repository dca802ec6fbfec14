"""Guidance distillation end to end on a tiny teacher: variants, what lands in the folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from cache_helpers import job, v_teacher, write_cache, write_curated
from distillery.core.artifacts import hash_files, read_json
from distillery.core.errors import DistilleryError
from distillery.families.description import Sampling, read_description
from distillery.families.guidance.training import (
    GuidanceDistillation,
    start_student,
    train_guidance,
)
from distillery.models.load import load_unet
from distillery.models.lora.files import load_guidance_unet
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.train.sources import Sources
from tiny_models import unet_inputs
from two_processes import STEPS, require_same_steps

CPU = torch.device("cpu")
VALUES = {
    "update": "lora", "objective": "teacher", "backbone": "teacher", "scale_low": 3.0,
    "scale_high": 3.0, "rescale": 0.0, "online": False, "batched": True, "negative": False,
    "r": 4, "alpha": 8.0, "targets": "all", "weighting": "constant", "gamma": 5.0,
}  # fmt: skip
SETTINGS = {
    "steps": 3, "learning_rate": 1e-3, "batch_size": 4, "weight_decay": 0.0, "warmup_steps": 1,
    "max_grad_norm": 1.0, "ema_decay": 0.0, "precision": "fp32", "gradient_checkpointing": False,
    "optimizer": "adamw", "runtime": "eager",
    "matmul_precision": "highest", "memory_format": "auto", "accumulate_steps": 1,
    "checkpoint_every_steps": 100,
    "validate_every_steps": 100, "num_val_samples": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher` (v prediction), `cache` with both views, `elr` (low-rank)."""
    folder = tmp_path_factory.mktemp("guidance")
    write_curated(folder)
    teacher = v_teacher(tiny_teacher, folder / "teacher")
    write_cache(folder, teacher, folder / "cache", views=("cond", "uncond"))
    student = factorise_unet(teacher.unet, plan_ranks(teacher.unet))[0]
    student.save_pretrained(folder / "elr")
    return folder


def _train(root: Path, out: Path, *, seeds: tuple = (0,), **changed: Any) -> dict:
    """Train a LoRA on the teacher for a few steps; returns `training.json`."""
    wanted = GuidanceDistillation(**{k: changed.pop(k, v) for k, v in VALUES.items()})
    cache = root / "cache"
    views = {"cond": cache / "cond", "uncond": cache / "uncond"}
    train_guidance(
        wanted,
        Sources(root / "teacher", cache / "base", "scenes", views),
        root / ("teacher" if wanted.backbone == "teacher" else "elr"),
        job(out, seeds, **{**SETTINGS, **changed}),
    )
    return read_json(out / "training.json")


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Two steps as they are by default: the model and its `training.json`."""
    folder = tmp_path_factory.mktemp("plain") / "m"
    return folder, _train(root, folder, steps=2)


def _losses(training: dict) -> list[float]:
    return [entry["output"] for entry in training["seeds"]["0"]["train"]]


def test_a_lora_comes_nearer_to_the_guided_teacher(root: Path, tmp_path: Path) -> None:
    changed = {"steps": 8, "learning_rate": 5e-4, "batch_size": 4, "num_val_samples": 4}
    training = _train(root, tmp_path / "m", seeds=(0, 1), **changed)
    for seed in ("0", "1"):
        distances = [entry["teacher_distance"] for entry in training["seeds"][seed]["val"]]
        assert distances[-1] < 0.95 * distances[0]
    names = {path.relative_to(tmp_path / "m").as_posix() for path in tmp_path.glob("m/**/*.*")}
    files = {"pytorch_lora_weights.safetensors", "student.json", "validation.png"}
    assert names == {*files, *(f"seed-1/{name}" for name in files), "training.json", "README.md"}
    described = read_description(tmp_path / "m/seed-1")
    teacher = described.bases(tmp_path / "m/seed-1")["backbone"]
    assert teacher.samefile(root / "teacher")
    assert described.sampling == Sampling(1, 3.0, False)
    seeds = [
        load_guidance_unet(folder, load_unet(root / "teacher/unet"))
        for folder in (tmp_path / "m", tmp_path / "m/seed-1")
    ]
    outputs = [unet(**unet_inputs()).sample for unet in seeds]
    assert not torch.equal(*outputs)


def test_cached_online_shared_and_separate_teachers_train_alike(
    root: Path, plain: tuple[Path, dict], tmp_path: Path
) -> None:
    """Shared weights, with and without checkpointing, one evaluation or two, and the cache."""
    cached = _losses(plain[1])
    for name, changed in {
        "batched": {"batched": True},
        "sequential": {"batched": False, "gradient_checkpointing": True},
    }.items():
        online = _losses(_train(root, tmp_path / name, online=True, steps=2, **changed))
        assert online == pytest.approx(cached, rel=1e-4)
    full = {"update": "full", "learning_rate": 1e-4, "steps": 2}
    beside = _losses(_train(root, tmp_path / "beside", online=True, **full))
    assert beside == pytest.approx(_losses(_train(root, tmp_path / "full", **full)), rel=1e-4)
    assert type(UNet2DConditionModel.from_pretrained(tmp_path / "full")) is UNet2DConditionModel


def test_two_processes_train_as_one(root: Path, tmp_path: Path) -> None:
    """With the scales and negative prompts that each sample draws."""
    changed = {"update": "full", "scale_low": 2.0, "scale_high": 8.0, "steps": STEPS,
               "negative": True}  # fmt: skip
    require_same_steps(lambda out: _train(root, out, **changed), tmp_path)


@pytest.mark.parametrize("update", ["lora", "full"])
def test_it_trains_with_weights_in_bfloat16(
    root: Path, plain: tuple[Path, dict], tmp_path: Path, update: str
) -> None:
    changed = {"update": update, "steps": 2}
    whole = plain[1] if update == "lora" else _train(root, tmp_path / "fp32", **changed)
    narrow = _train(root, tmp_path / "m", precision="bf16", weights="bf16", **changed)
    assert _losses(narrow) == pytest.approx(_losses(whole), rel=0.05)


@pytest.mark.parametrize(
    "changed",
    [{"online": True}, {"backbone": "unet/elr"}, {"update": "full", "scale_low": 2.0}],
    ids=["lora", "elr", "full"],
)
def test_a_student_is_taught_negative_prompts(root: Path, tmp_path: Path, changed: dict) -> None:
    training = _train(root, tmp_path / "m", negative=True, steps=2, **changed)
    assert training["settings"]["negative"] is True
    assert read_description(tmp_path / "m").sampling.takes_negative
    base = root / ("elr" if "backbone" in changed else "teacher/unet")
    scale = 3.0 if "update" in changed else None
    told, plain = (
        load_guidance_unet(tmp_path / "m", load_unet(base), scale=scale, negative=negative)
        for negative in (True, False)
    )
    inputs = unet_inputs()
    difference = torch.randn(inputs["encoder_hidden_states"].shape)
    assert torch.equal(told(**inputs).sample, plain(**inputs).sample)
    assert not torch.equal(
        told(**inputs, negative_difference=difference).sample, plain(**inputs).sample
    )
    if "update" in changed:
        assert type(UNet2DConditionModel.from_pretrained(tmp_path / "m")) is UNet2DConditionModel


def test_the_plain_form_is_what_it_was_without_negative_prompts(
    root: Path, plain: tuple[Path, dict]
) -> None:
    folder, _ = plain
    assert not (folder / "negative_prompt.safetensors").exists()
    with pytest.raises(DistilleryError, match=r"negative_prompt\.safetensors: not found"):
        load_guidance_unet(folder, load_unet(root / "teacher/unet"), negative=True)


def test_the_same_run_gives_the_same_bytes(
    root: Path, plain: tuple[Path, dict], tmp_path: Path
) -> None:
    again = tmp_path / "m"
    _train(root, again, steps=2)
    assert hash_files(plain[0]) == hash_files(again)


def test_a_lora_on_the_low_rank_student_learns_from_the_cache(root: Path, tmp_path: Path) -> None:
    _train(root, tmp_path / "m", backbone="unet/elr", steps=2)
    unet = load_guidance_unet(tmp_path / "m", load_unet(root / "elr"))
    assert type(unet) is LowRankUNet2DConditionModel
    assert not torch.equal(
        unet(**unet_inputs()).sample, load_unet(root / "elr")(**unet_inputs()).sample
    )


def test_the_noise_objective_asks_no_teacher(root: Path, tmp_path: Path) -> None:
    training = _train(root, tmp_path / "m", objective="noise", steps=1)
    (entry,) = training["seeds"]["0"]["train"]
    assert entry["loss"] == entry["diffusion"]
    assert read_description(tmp_path / "m").sampling == Sampling(2, None, False)


def test_a_range_of_scales_makes_a_told_student(root: Path, tmp_path: Path) -> None:
    training = _train(
        root, tmp_path / "m", update="full", scale_low=2.0, scale_high=8.0, learning_rate=1e-4
    )
    told = UNet2DConditionModel.from_pretrained(tmp_path / "m")
    assert told.config.time_cond_proj_dim == 256
    assert float(told.time_embedding.cond_proj.weight.abs().sum().detach()) > 0
    assert read_description(tmp_path / "m").sampling == Sampling(1, [2.0, 8.0], True)
    backbone = load_unet(root / "teacher/unet")
    with pytest.raises(DistilleryError, match="told its guidance scale; give one"):
        load_guidance_unet(tmp_path / "m", backbone)
    outputs = [
        load_guidance_unet(tmp_path / "m", backbone, scale=s)(**unet_inputs()).sample
        for s in (2.0, 8.0)
    ]
    assert not torch.equal(*outputs)
    assert len(_losses(training)) == 3


def test_half_precision_freezes_a_half_precision_base(
    root: Path, plain: tuple[Path, dict], tmp_path: Path
) -> None:
    wanted = GuidanceDistillation(**VALUES)
    unet = start_student(wanted, root / "teacher/unet", dtype=torch.bfloat16, seed=0)
    frozen = {p.dtype for p in unet.parameters() if not p.requires_grad}
    trained = {p.dtype for p in unet.parameters() if p.requires_grad}
    assert (frozen, trained) == ({torch.bfloat16}, {torch.float32})
    training = _train(root, tmp_path / "m", online=True, precision="bf16", steps=2)
    assert _losses(training) == pytest.approx(_losses(plain[1]), rel=0.1)
