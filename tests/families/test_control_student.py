"""Stage II end to end on a tiny teacher: the loss, resume, the frozen backbone, wrong folders."""

import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cache_helpers import NUM_RECORDS, job, v_teacher, write_cache, write_curated
from distillery.core.artifacts import hash_files, read_json, write_manifest
from distillery.core.errors import DistilleryError
from distillery.core.shards import shard_name, write_table_shard
from distillery.data.conditions.annotate import CONDITION_SCHEMA
from distillery.diffusion.batch import Batch
from distillery.diffusion.control import batch_residuals
from distillery.diffusion.control_adapter import ControlNets, Distances, TuneControl
from distillery.diffusion.control_drop import Drop
from distillery.diffusion.objectives import Diffusion
from distillery.families.backbone import open_backbone
from distillery.families.control.training import (
    ControlTuning,
    train_adapters,
)
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.load import load_unet
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.train.sources import Sources
from tiny_models import tiny_controlnet, tiny_unet, unet_inputs
from two_processes import STEPS, require_same_steps

KINDS = ("canny", "sketch")
KRONECKER = {"n": 4, "r": 2, "alpha": 2.0, "share_A": True, "zero": "v", "indivisible": "error"}
ALPHA_BAR = torch.linspace(0.999, 0.0, 1000)


def _write_maps(root: Path) -> None:
    rng = np.random.default_rng(1)
    for kind in KINDS:
        rows = []
        for number in range(NUM_RECORDS):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
            rows.append({"key": f"{number:04d}", "image": {"bytes": file.getvalue(), "path": None}})
        (root / "0" / kind).mkdir(parents=True)
        write_table_shard(root / "0" / kind / shard_name(0, "parquet"), rows, CONDITION_SCHEMA)


@pytest.fixture(scope="module")
def root(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher` (v prediction), `cache` and `conditions`."""
    folder = tmp_path_factory.mktemp("stage-two")
    write_curated(folder)
    write_cache(folder, v_teacher(tiny_teacher, folder / "teacher"), folder / "cache", views=())
    _write_maps(folder / "conditions")
    unet = load_unet(folder / "teacher")
    factorise_unet(unet, plan_ranks(unet))[0].save_pretrained(folder / "elr")
    return folder


def _train(root: Path, out: Path, seeds: tuple = (0,), **changed: Any) -> dict:
    values = {
        "steps": 3, "learning_rate": 1e-2, "batch_size": 3, "weight_decay": 0.0,
        "warmup_steps": 0, "max_grad_norm": 1.0, "ema_decay": 0.0, "precision": "fp32",
        "gradient_checkpointing": False, "optimizer": "adamw", "runtime": "eager",
        "matmul_precision": "highest", "memory_format": "auto", "accumulate_steps": 1,
        "checkpoint_every_steps": 1, "validate_every_steps": 10, "num_val_samples": 2,
    }  # fmt: skip
    kronecker = changed.pop("kronecker", KRONECKER)
    teacher = changed.pop("teacher", root / "teacher")
    backbone, encoder = changed.pop("backbone", "teacher"), changed.pop("encoder", "backbone")
    train_adapters(
        ControlTuning(
            backbone,
            encoder,
            KINDS,
            "frozen",
            kronecker,
            Drop(0.5, 0.1, 0.1, 0.5),
            "min_snr",
            5.0,
            lambda_diffusion=1.0,
            lambda_kd=changed.pop("lambda_kd", 0.0),
        ),
        Sources(teacher, root / "cache/base", "scenes", conditions=root / "conditions"),
        teacher if backbone == "teacher" else root / "elr",
        job(out, seeds, **{**values, **changed}),
    )
    return read_json(out / "training.json")


def test_training_leaves_the_backbone_and_writes_every_seed(root: Path, tmp_path: Path):
    before = hash_files(root / "teacher")
    training = _train(root, tmp_path / "model", seeds=(3, 5), steps=2)
    assert hash_files(root / "teacher") == before
    assert training["settings"]["kinds"] == list(KINDS)
    assert {entry["step"] for entry in training["seeds"]["5"]["val"]} == {0, 2}
    for folder in (tmp_path / "model", tmp_path / "model" / "seed-5"):
        adapter = ControlAdapter.from_pretrained(folder)
        assert adapter.controlnet_mid_block.weight.any()
        assert adapter.config.conditions == list(KINDS)
        assert (folder / "validation.png").is_file()
        copied = adapter.conv_in.base_layer.weight
        source = load_unet(root / "teacher" / "unet").conv_in.weight
        assert torch.equal(copied, source)


def test_the_teachers_encoder_is_copied_on_request(root: Path, tmp_path: Path):
    """On a low-rank backbone, whose own encoder is copied else; both train the same factors."""
    adapters = {}
    for encoder in ("backbone", "teacher"):
        training = _train(root, tmp_path / encoder, steps=1, backbone="unet/elr", encoder=encoder)
        assert training["settings"]["encoder"] == encoder
        adapters[encoder] = ControlAdapter.from_pretrained(tmp_path / encoder)
    own, dense = adapters["backbone"], adapters["teacher"]
    assert own.config.ranks
    assert not dense.config.ranks
    name = "mid_block.resnets.0.conv1"
    source = load_unet(root / "teacher").get_submodule(name).weight
    assert torch.equal(dense.get_submodule(name).base_layer.weight, source)
    trained = [[n for n, p in a.named_parameters() if p.requires_grad] for a in (own, dense)]
    assert trained[0] == trained[1]


def test_the_teachers_controlnets_are_distilled_on_request(root: Path, tmp_path: Path):
    own = shutil.copytree(root / "teacher", tmp_path / "teacher")
    shutil.rmtree(own / "controlnet_sketch")
    with pytest.raises(DistilleryError, match="no ControlNet for sketch"):
        _train(root, tmp_path / "lost", teacher=own, steps=1, lambda_kd=0.5)
    for kind in KINDS:
        tiny_controlnet(load_unet(own / "unet")).save_pretrained(own / f"controlnet_{kind}")
    before = hash_files(own)
    training = _train(root, tmp_path / "model", teacher=own, steps=1, lambda_kd=0.5)
    assert hash_files(own) == before
    first = training["seeds"]["0"]["val"][0]
    assert first["loss"] == pytest.approx(first["diffusion"] + first["kd"], abs=2e-6)  # of 6 digits
    assert first["kd"] > 0


def test_an_interrupted_training_goes_on_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _train(root, tmp_path / "whole")
    calls, original = [], TuneControl.__call__

    def stumble(self, model, batch):
        calls.append(model.training)
        if sum(calls) == 3:
            raise KeyboardInterrupt
        return original(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TuneControl, "__call__", stumble)
        with pytest.raises(KeyboardInterrupt):
            _train(root, tmp_path / "broken")
    _train(root, tmp_path / "broken")
    name = "diffusion_pytorch_model.distillery.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_parts_of_a_batch_drop_what_the_whole_would(root: Path, tmp_path: Path):
    """The losses of three steps, all of whose choices are made for the step, not for a part."""
    whole, parts = (
        _train(root, tmp_path / str(num), batch_size=4, accumulate_steps=num) for num in (1, 2)
    )
    one, other = (training["seeds"]["0"]["train"] for training in (whole, parts))
    assert [entry["step"] for entry in one] == [1, 2, 3]
    for mine, theirs in zip(one, other, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


@pytest.mark.parametrize("lambda_kd", [0.0, 0.5])
def test_two_processes_train_as_one(root: Path, tmp_path: Path, lambda_kd: float):
    require_same_steps(
        lambda out: _train(root, out, batch_size=4, steps=STEPS, lambda_kd=lambda_kd), tmp_path
    )


def test_it_trains_with_weights_in_bfloat16(root: Path, tmp_path: Path):
    narrow = {"precision": "bf16", "weights": "bf16"}
    training = _train(root, tmp_path / "m", steps=2, lambda_kd=0.5, **narrow)
    assert training["seeds"]["0"]["train"][-1]["loss"] > 0
    adapter = ControlAdapter.from_pretrained(tmp_path / "m")
    trained = [p for p in adapter.parameters() if p.requires_grad and p.ndim >= 2]
    assert all(torch.equal(p, p.bfloat16().float()) for p in trained)


def _batch() -> Batch:
    given = unet_inputs()
    generator = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(2, 16, 8, 8, generator=generator) for _ in range(2))
    maps = {kind: torch.rand(2, 3, 64, 64, generator=generator) for kind in KINDS}
    text = given["encoder_hidden_states"]
    return Batch(["a", "b"], latents, noise, given["timestep"], {"text": text}, {}, maps)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_at_the_start_is_the_backbones(prediction_type: str):
    unet, batch = tiny_unet(), _batch()
    diffusion = Diffusion.create(
        ALPHA_BAR, prediction_type, space="native", kind="constant", gamma=5.0
    )
    objective = TuneControl(
        diffusion, unet, KINDS, {"text": torch.zeros(1, 5, 32)}, Drop(0, 0, 0, 0)
    )
    adapter = ControlAdapter.from_unet(unet, conditions=KINDS).train()
    alpha = ALPHA_BAR[batch.timesteps].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - ALPHA_BAR[batch.timesteps]).sqrt().view(-1, 1, 1, 1)
    noisy = alpha * batch.latents + sigma * batch.noise
    v = alpha * batch.noise - sigma * batch.latents
    wanted = batch.noise if prediction_type == "epsilon" else v
    with torch.no_grad():
        loss = objective(adapter, batch)["diffusion"]
        said = unet(noisy, batch.timesteps, batch.conditioning["text"]).sample
    torch.testing.assert_close(loss, (said - wanted).square().mean())


def test_captions_and_conditions_are_dropped_in_training_only():
    seen = {}

    def adapter_call(noisy, timesteps, *, encoder_hidden_states, controlnet_cond, return_dict):
        seen.update(text=encoder_hidden_states, hint=controlnet_cond)
        raise InterruptedError

    unet, batch = tiny_unet(), _batch()
    diffusion = Diffusion.create(ALPHA_BAR, "epsilon", space="native", kind="constant", gamma=5.0)
    empty = {"text": torch.full((1, 5, 32), 7.0)}
    objective = TuneControl(diffusion, unet, KINDS, empty, Drop(1.0, 0.0, 0.0, 1.0))
    for training in (True, False):
        adapter_call.training = training
        with pytest.raises(InterruptedError):
            objective(adapter_call, batch)
        assert bool((seen["text"] == 7).all()) == training
        kept = seen["hint"].flatten(2).any(2).tolist()
        assert kept == (
            [[False] * 6] * 2 if training else [[True] * 3 + [False] * 3, [False] * 3 + [True] * 3]
        )


def _asks(level: float):
    """A ControlNet whose residuals are `level` times the sample's number in the whole batch."""

    def ask(batch: Batch, noisy: torch.Tensor) -> list[torch.Tensor]:
        numbers = torch.tensor([float(key) for key in batch.keys]).view(-1, 1, 1, 1)
        assert len(noisy) == len(numbers) == len(batch.conditioning["text"])
        return [level * numbers.expand(-1, 2, 4, 4), level * numbers.expand(-1, 3, 2, 2)]

    return ask


def test_several_controlnets_are_averaged_as_a_multi_controlnet_would():
    batch = dataclasses.replace(_batch(), keys=["1", "2"])
    nets = ControlNets({"canny": _asks(1.0), "sketch": _asks(10.0)})
    for kept, expected in (
        ([[True, False], [False, True]], [1.0, 20.0]),
        ([[True, True], [False, False]], [5.5, 0.0]),
    ):
        found = nets.residuals(batch, batch.noise, torch.tensor(kept))
        assert [r.shape for r in found] == [(2, 2, 4, 4), (2, 3, 2, 2)]
        for residual in found:
            for value, wanted in zip(residual, expected, strict=True):
                torch.testing.assert_close(value, torch.full_like(value, wanted))
    assert nets.residuals(batch, batch.noise, torch.zeros(2, 2, dtype=torch.bool)) == []


def test_the_kd_term_is_zero_for_the_controlnets_own_residuals_alone():
    unet, batch = tiny_unet(), _batch()
    diffusion = Diffusion.create(ALPHA_BAR, "epsilon", space="native", kind="constant", gamma=5.0)
    teacher = ControlAdapter.from_unet(unet, conditions=("canny",)).eval()
    for block in teacher.controlnet_down_blocks:
        torch.nn.init.normal_(block.weight, generator=torch.Generator().manual_seed(0))

    def ask(batch: Batch, noisy: torch.Tensor) -> list[torch.Tensor]:
        return batch_residuals(teacher, noisy, batch, "canny")

    distances = Distances(0.0, 1.0, ControlNets({"canny": ask}))
    objective = TuneControl(
        diffusion, unet, ("canny",), {"text": torch.zeros(1, 5, 32)}, Drop(0, 0, 0, 0), distances
    )
    alone = dataclasses.replace(batch, conditions={"canny": batch.conditions["canny"]})
    with torch.no_grad():
        assert objective(teacher, alone) == {"kd": torch.tensor(0.0)}
        start = ControlAdapter.from_unet(unet, conditions=("canny",)).eval()
        assert objective(start, alone)["kd"] > 0.5


def test_only_the_backbone_that_was_asked_for_is_taken(root: Path, tmp_path: Path):
    teacher = root / "teacher"
    assert open_backbone("teacher", teacher, teacher) == teacher / "unet"
    with pytest.raises(DistilleryError, match="no U-Net for unet/elr here"):
        open_backbone("unet/elr", teacher, teacher)
    unet = tiny_unet()
    unet.save_pretrained(tmp_path / "unet")
    assert open_backbone("unet/elr", tmp_path / "unet", teacher) == tmp_path / "unet"
    write_manifest(tmp_path / "unet", "distill_unet/other", {}, {})
    with pytest.raises(DistilleryError, match="made by distill_unet/other"):
        open_backbone("unet/elr", tmp_path / "unet", teacher)
    tiny_unet(cross_attention_dim=16).save_pretrained(tmp_path / "narrow")
    with pytest.raises(DistilleryError, match="cross_attention_dim is 16, the teacher's 32"):
        open_backbone("unet/elr", tmp_path / "narrow", teacher)
