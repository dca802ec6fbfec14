"""Stage I end to end on a tiny teacher: starting points, training, what lands in the folder."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from cache_helpers import job, v_teacher, write_cache, write_curated
from distillery.core.artifacts import hash_files, read_json
from distillery.core.errors import DistilleryError
from distillery.families.unet.init import Decomposition, write_decomposition
from distillery.families.unet.training import Distillation, start_student, train_students
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.params import load_params
from distillery.stages.distill_unet import distill_unet
from distillery.train.sources import Sources
from two_processes import STEPS, require_same_steps

ROOT = Path(__file__).parents[2]
RANK = {
    "rule": "ratio", "value": 1 / 3, "file": None, "device": None, "multiple_of": None,
    "keep_dense": ["conv_in", "conv_out"],
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher` (v prediction), `cache` and `init` with all decompositions."""
    folder = tmp_path_factory.mktemp("stage-one")
    write_curated(folder)
    write_cache(folder, v_teacher(tiny_teacher, folder / "teacher"), folder / "cache")
    for method in ("random", "svd", "balanced", "data_aware", "planned"):
        wanted = Decomposition(method, RANK, other_params=0, num_moment_samples=8, batch_size=8)
        cache = folder / "cache/base" if method in ("data_aware", "planned") else None
        write_decomposition(wanted, folder / "teacher", cache, folder / "init" / method, CPU)
    return folder


def _start(root: Path, architecture: str, init: str, seed: int = 0) -> torch.nn.Module:
    return start_student(
        architecture, init, teacher=root / "teacher", init_folder=root / "init" / init, seed=seed
    )


def test_planned_ranks_lose_less_at_the_same_size(root: Path) -> None:
    folders = {name: root / "init" / name for name in ("data_aware", "planned")}
    reports = {name: read_json(folder / "layers.json") for name, folder in folders.items()}
    sizes = {name: report["unet_parameters"]["student"] for name, report in reports.items()}
    assert 0.98 * sizes["data_aware"] < sizes["planned"] <= sizes["data_aware"]
    lost = {
        name: sum(layer["relative_output_error"] ** 2 for layer in report["layers"])
        for name, report in reports.items()
    }
    assert lost["planned"] < lost["data_aware"]
    student = _start(root, "low_rank", "planned")
    assert (
        student.config.ranks == LowRankUNet2DConditionModel.load_config(folders["planned"])["ranks"]
    )


def _train(root: Path, out: Path, name: str, *, seeds: tuple = (0,), **changed: Any) -> dict:
    """Train a low-rank student for a few steps; returns `training.json`."""
    values = {
        "steps": 3, "learning_rate": 1e-3, "batch_size": 4, "weight_decay": 0.0,
        "warmup_steps": 1, "max_grad_norm": 1.0, "ema_decay": 0.0, "precision": "fp32",
        "gradient_checkpointing": False, "optimizer": "adamw", "runtime": "eager",
        "matmul_precision": "highest", "memory_format": "auto", "accumulate_steps": 1,
        "checkpoint_every_steps": 2, "validate_every_steps": 100, "num_val_samples": 4,
    }  # fmt: skip
    kd = {
        "objective": "teacher", "space": "native", "weighting": "min_snr", "gamma": 5.0,
        "lambda_diffusion": 0.0, "lambda_feature": 0.0, "online": False,
    }  # fmt: skip
    init = changed.pop("init", "svd")
    train_students(
        lambda seed: _start(root, "low_rank", init, seed),
        Distillation(**{k: changed.pop(k, v) for k, v in kd.items()}),
        Sources(root / "teacher", root / "cache/base", "scenes", {"cond": root / "cache/cond"}),
        job(out, seeds, name, **{**values, **changed}),
    )
    return read_json(out / "training.json")


def test_two_processes_train_as_one(root: Path, tmp_path: Path) -> None:
    changed = {"lambda_diffusion": 1.0, "lambda_feature": 1.0, "online": True, "steps": STEPS}
    require_same_steps(lambda out: _train(root, out, out.name, **changed), tmp_path)


def test_it_trains_with_weights_in_bfloat16(root: Path, tmp_path: Path) -> None:
    narrow = {"precision": "bf16", "weights": "bf16", "steps": 2}
    _train(root, tmp_path / "m", "m", **narrow)
    student = LowRankUNet2DConditionModel.from_pretrained(tmp_path / "m")
    weights = [p for p in student.parameters() if p.ndim >= 2]
    assert all(torch.equal(p, p.bfloat16().float()) for p in weights)


def test_a_stage_reads_the_folders_that_it_is_given(root: Path, tmp_path: Path) -> None:
    """A cache under other names, with nothing beside it under the usual ones."""
    shutil.copytree(root / "cache/base", tmp_path / "a/latents")
    shutil.copytree(root / "cache/cond", tmp_path / "b/answers")
    arguments = [
        "--params", _params(tmp_path), "--variant", "elr", "--teacher", root / "teacher",
        "--init", root / "init/svd", "--base", tmp_path / "a/latents",
        "--cond", tmp_path / "b/answers", "--model", tmp_path / "model",
    ]  # fmt: skip
    distill_unet.main([str(argument) for argument in arguments])
    assert read_json(tmp_path / "model/training.json")["seeds"]["0"]["train"][-1]["step"] == 2
    arguments[-3] = root / "cache/base"
    with pytest.raises(SystemExit):
        distill_unet.main([str(argument) for argument in arguments])


def _params(folder: Path) -> Path:
    """The shipped params with a short training, their work folder in `folder`."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["paths"]["work"] = str(folder / "work")
    values["distill_unet"]["variants"]["elr"]["steps"] = 2
    values["distill_unet"]["training"] |= {"batch_size": 2, "num_val_samples": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder / "params.yaml"


def test_starting_points(root: Path) -> None:
    svd, balanced = _start(root, "low_rank", "svd"), _start(root, "low_rank", "balanced")
    name = "mid_block.resnets.0.conv1"
    first, second = (m.get_submodule(name) for m in (svd, balanced))
    torch.testing.assert_close(first.merged_weight(), second.merged_weight())
    assert not torch.allclose(first.expand.weight, second.expand.weight)
    aware = _start(root, "low_rank", "data_aware").get_submodule(name)
    assert not torch.allclose(aware.merged_weight(), first.merged_weight())
    state = torch.get_rng_state()
    for architecture in ("low_rank", "dense"):
        same, again, other = (
            _start(root, architecture, "random", seed).conv_in.weight for seed in (1, 1, 2)
        )
        assert torch.equal(same, again)
        assert not torch.equal(same, other)
    assert torch.equal(torch.get_rng_state(), state)
    drawn = _start(root, "dense", "random", seed=1)
    assert type(drawn) is UNet2DConditionModel
    torch.manual_seed(1)
    own = UNet2DConditionModel.from_config(drawn.config).state_dict()
    assert all(torch.equal(value, own[name]) for name, value in drawn.state_dict().items())


def test_the_report_gives_errors_and_sizes(root: Path) -> None:
    svd, aware = (read_json(root / "init" / m / "layers.json") for m in ("svd", "data_aware"))
    weights = [sum(row["relative_error"] for row in report["layers"]) for report in (svd, aware)]
    assert weights[0] < weights[1]  # data-aware factors lose more of the weights, less of outputs
    assert all(0 < row["relative_output_error"] < 1 for row in aware["layers"])
    assert {row["relative_output_error"] for row in svd["layers"]} == {None}
    assert svd["unet_parameters"]["student"] < svd["unet_parameters"]["teacher"]


def test_a_decomposition_that_reads_the_cache_says_so(root: Path, tmp_path: Path) -> None:
    wanted = Decomposition("planned", RANK, other_params=0, num_moment_samples=8, batch_size=8)
    with pytest.raises(DistilleryError, match="planned needs --base"):
        write_decomposition(wanted, root / "teacher", None, tmp_path / "out", CPU)


def test_the_card_says_what_was_trained_on_what(root: Path, tmp_path: Path) -> None:
    _train(root, tmp_path / "model", "card", seeds=(3, 5), init="random")
    card = (tmp_path / "model" / "README.md").read_text()
    for said in (
        "base_model: scenes", "`reports/cards/unet/test.md`", 'load_unet(Path("models/unet/test"))',
        "9 training images and 3 for validation at 64 px, each at 2 noise levels",
        "- learning_rate: 0.001", "- objective: teacher", "- seeds: 3 at the top, 5 in `seed-5/`",
    ):  # fmt: skip
        assert said in card, said
    assert str(tmp_path) not in card
    assert str(root) not in card


def test_seeds_lie_in_their_folders_and_load_in_the_pipeline(root: Path, tmp_path: Path) -> None:
    training = _train(
        root, tmp_path / "model", "seeds", seeds=(3, 5), init="random", validate_every_steps=2
    )
    assert set(training["seeds"]) == {"3", "5"}
    assert [entry["step"] for entry in training["seeds"]["3"]["val"]] == [0, 2, 3]
    assert [entry["step"] for entry in training["seeds"]["3"]["train"]] == [1, 2, 3]
    models = [
        LowRankUNet2DConditionModel.from_pretrained(folder)
        for folder in (tmp_path / "model", tmp_path / "model" / "seed-5")
    ]
    assert not torch.equal(models[0].conv_in.weight, models[1].conv_in.weight)
    pipeline = StableDiffusionPipeline.from_pretrained(
        root / "teacher", unet=models[1], safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red circle", num_inference_steps=1, height=64, width=64).images[0]
    assert image.size == (64, 64)
    with Image.open(tmp_path / "model" / "validation.png") as grid:
        assert grid.size == (2 * 64, 2 * 64)


def test_the_same_run_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _train(root, tmp_path / name / "model", "same")
    assert hash_files(tmp_path / "one/model") == hash_files(tmp_path / "two/model")


def test_training_comes_nearer_to_the_teacher_and_cached_equals_online(
    root: Path, tmp_path: Path
) -> None:
    cached = _train(root, tmp_path / "cached", "cached", steps=12)["seeds"]["0"]
    online = _train(root, tmp_path / "online", "online", steps=12, online=True)["seeds"]["0"]
    distances = [entry["teacher_distance"] for entry in cached["val"]]
    assert distances[-1] < 0.9 * distances[0]
    for mine, theirs in zip(cached["train"], online["train"], strict=True):
        assert mine["output"] == pytest.approx(theirs["output"], rel=1e-4)


def test_all_terms_are_logged_with_the_online_teacher(root: Path, tmp_path: Path) -> None:
    training = _train(
        root, tmp_path / "model", "terms",
        steps=1, online=True, lambda_diffusion=0.5, lambda_feature=0.1, gradient_checkpointing=True,
    )  # fmt: skip
    entry = training["seeds"]["0"]["train"][0]
    assert entry["loss"] == pytest.approx(
        sum(entry[name] for name in ("output", "diffusion", "feature")), rel=1e-4
    )


def test_no_steps_keep_the_decomposition(root: Path, tmp_path: Path) -> None:
    training = _train(root, tmp_path / "model", "none", steps=0)
    kept = LowRankUNet2DConditionModel.from_pretrained(tmp_path / "model").state_dict()
    for name, tensor in _start(root, "low_rank", "svd").state_dict().items():
        assert torch.equal(tensor, kept[name])
    assert 0 < training["seeds"]["0"]["val"][0]["teacher_distance"] < 2


def test_features_without_the_online_teacher_are_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(
        text.replace("lambda_feature: 0.0", "lambda_feature: 0.1")
    )
    with pytest.raises(DistilleryError, match=r"distill_unet.kd: lambda_feature needs .* online"):
        load_params(tmp_path / "params.yaml")
