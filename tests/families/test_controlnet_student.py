"""ControlNet distillation end to end on a tiny teacher: starts, training, cached residuals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from cache_helpers import job
from controlnet_toy import KIND, VIEW, write_project
from distillery.core.artifacts import hash_files, read_json
from distillery.core.errors import DamagedError, DistilleryError
from distillery.diffusion.controlnet import Factors
from distillery.families.controlnet.start import start_student
from distillery.families.controlnet.training import ControlDistillation, train_controlnets
from distillery.models.load import load_unet
from distillery.models.student_controlnet.model import StudentControlNet
from distillery.teacher.load import load_teacher_controlnet
from distillery.train.sources import Sources
from tiny_models import unet_inputs
from two_processes import STEPS, require_same_steps

CPU = torch.device("cpu")
HINTS = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).round()
SETTINGS = {
    "steps": 2, "learning_rate": 1e-3, "batch_size": 4, "weight_decay": 0.0, "warmup_steps": 1,
    "max_grad_norm": 1.0, "ema_decay": 0.0, "precision": "fp32", "gradient_checkpointing": False,
    "optimizer": "adamw", "runtime": "eager",
    "matmul_precision": "highest", "memory_format": "auto", "accumulate_steps": 1,
    "checkpoint_every_steps": 2,
    "validate_every_steps": 20, "num_val_samples": 4,
}  # fmt: skip
LESSON = {
    "kind": KIND, "factors": Factors(1.0, 1.0, 1.0), "stats": "teacher", "axes": "sample",
    "weighting": "min_snr", "gamma": 5.0, "online": False, "residual_budget_bytes": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controlnets")
    write_project(folder, tiny_teacher)
    return folder


def _start(root: Path, student: Any, init: str, seed: int = 0) -> ControlNetModel:
    teacher = root / "teacher"
    return start_student(student, init, teacher=teacher, kind=KIND, hints=HINTS, seed=seed)


def _train(root: Path, out: Path, student: str = "reduced_layer", **changed: Any) -> dict:
    """Train a student for a few steps; returns the history of seed 0."""
    lesson = {k: changed.pop(k, v) for k, v in LESSON.items()}
    init = changed.pop("init", "teacher")
    views = {VIEW: root / "cache" / VIEW}
    sources = Sources(root / "teacher", root / "cache/base", "scenes", views, root / "conditions")
    train_controlnets(
        lambda seed, hints: _start(root, student, init, seed),
        ControlDistillation(**lesson),
        sources,
        job(out, **{**SETTINGS, **changed}),
    )
    return read_json(out / "training.json")["seeds"]["0"]


def test_two_processes_train_as_one(root: Path, tmp_path: Path) -> None:
    require_same_steps(lambda out: _train(root, out, steps=STEPS), tmp_path)


def test_it_trains_with_weights_in_bfloat16(root: Path, tmp_path: Path) -> None:
    whole = _train(root, tmp_path / "fp32")
    narrow = _train(root, tmp_path / "m", precision="bf16", weights="bf16")
    losses = [[entry["loss"] for entry in history["train"]] for history in (narrow, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    student = StudentControlNet.from_pretrained(tmp_path / "m")
    weights = [p for p in student.parameters() if p.ndim >= 2]
    assert all(torch.equal(p, p.bfloat16().float()) for p in weights)


def test_every_start_leaves_the_unet_as_it_is(root: Path) -> None:
    inputs = unet_inputs()
    starts = [("original", "unet"), ("original", "teacher"), ("modulated", "random")]
    for student, init in starts:
        down, mid = _start(root, student, init)(
            inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"],
            controlnet_cond=HINTS[:2], return_dict=False,
        )  # fmt: skip
        assert len(down) == 4
        assert all(not residual.any() for residual in (*down, mid))


def test_original_starts_from_the_unet_and_the_others_from_the_teacher(root: Path) -> None:
    unet = load_unet(root / "teacher")
    teacher = load_teacher_controlnet(root / "teacher", KIND, unet)
    original = _start(root, "original", "unet")
    assert type(original) is ControlNetModel
    name = "down_blocks.0.resnets.0.conv1"
    weight = original.get_submodule(name).weight
    assert torch.equal(weight, unet.get_submodule(name).weight)
    assert all(parameter.requires_grad for parameter in original.parameters())
    copy = _start(root, "original", "teacher")
    hint = "controlnet_cond_embedding.conv_in"
    assert torch.equal(copy.get_submodule(hint).weight, teacher.get_submodule(hint).weight)


def test_new_hint_networks_pass_hints_on(root: Path) -> None:
    for student, init in (("original", "unet"), ("reduced_layer", "random")):
        network = _start(root, student, init).controlnet_cond_embedding
        with torch.no_grad():
            assert 0.5 < float(network(HINTS).std()) < 2


def test_seeds_matter_where_weights_are_random(root: Path) -> None:
    for student, init in (("original", "unet"), ("reduced_layer", "random")):
        same, again, other = (
            _start(root, student, init, seed).controlnet_cond_embedding.conv_in.weight
            for seed in (1, 1, 2)
        )
        assert torch.equal(same, again)
        assert not torch.equal(same, other)


def test_training_follows_the_teacher_and_leaves_it_alone(root: Path, tmp_path: Path) -> None:
    before = hash_files(root / "teacher")
    history = _train(root, tmp_path / "model", steps=8, learning_rate=3e-3)
    assert hash_files(root / "teacher") == before
    first, last = (history["val"][place]["teacher_distance"] for place in (0, -1))
    assert last < 0.9 * first
    entry = history["train"][0]
    terms = [name for name in entry if name not in ("step", "loss")]
    assert set(terms) == {"diffusion", "teacher", *(f"kd_{n}" for n in range(4)), "kd_mid"}
    assert entry["loss"] == pytest.approx(sum(entry[name] for name in terms), rel=1e-4)
    model = StudentControlNet.from_pretrained(tmp_path / "model")
    assert model.controlnet_mid_block.weight.any()
    with Image.open(tmp_path / "model" / "validation.png") as grid:
        assert grid.size == (2 * 64, 3 * 64)  # two prompts: maps, images, what is made of them


def test_online_and_cached_residuals_give_the_same_losses(root: Path, tmp_path: Path) -> None:
    usual = _train(root, tmp_path / "usual")["train"]
    for name, changed in (("online", {"online": True}), ("kept", {"residual_budget_bytes": 10**8})):
        other = _train(root, tmp_path / name, **changed)["train"]
        for mine, theirs in zip(usual, other, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)


def test_damaged_residuals_are_found(root: Path, tmp_path: Path) -> None:
    _train(root, tmp_path / "model", steps=0, residual_budget_bytes=10**8)
    shard = next(tmp_path.rglob("residuals/00000.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-5000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedError, match=r"00000.*damaged; remove .*residuals and run"):
        _train(root, tmp_path / "model", residual_budget_bytes=10**8)


def test_residuals_over_the_budget_are_refused_before_any_is_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(DistilleryError, match=r"about 641 kB to write.*over the budget"):
        _train(root, tmp_path / "model", residual_budget_bytes=10**5)
    assert not list(tmp_path.rglob("residuals/*"))
    _train(root, tmp_path / "model", steps=0, residual_budget_bytes=10**8)
    assert "residuals: about 641 kB" in capsys.readouterr().err
    written = sum(path.stat().st_size for path in tmp_path.rglob("residuals/*"))
    values = 32 * (2 * 8 * 8 + 4 * 4) + 2 * 64 * 4 * 4  # of one item, in 24
    assert 24 * 4 * values < written < 1.05 * 24 * 4 * values


def test_running_statistics_are_resumed_and_not_saved(root: Path, tmp_path: Path) -> None:
    changed = {"axes": "running", "steps": 4, "checkpoint_every_steps": 2}
    whole = _train(root, tmp_path / "whole" / "model", **changed)["train"]

    again = tmp_path / "again" / "model"
    assert not any("running" in n for n in StudentControlNet.from_pretrained(
        tmp_path / "whole" / "model").state_dict())  # fmt: skip
    _train(root, again, **changed)
    checkpoint = next((tmp_path / "again").rglob("step-00000004"))
    assert "layerwise_running" in (checkpoint / "model.safetensors").read_bytes().decode("latin1")
    assert whole == read_json(again / "training.json")["seeds"]["0"]["train"]
