"""Rows run on a tiny teacher; what does not fit says so and is predicted."""

import json

import pytest
import torch

from distillery.commands import profile
from distillery.commands.profile_text import as_text
from distillery.core.errors import DistilleryError
from distillery.cost.accounting import load_architecture
from distillery.cost.full_size import training_run as full_size_run
from distillery.cost.full_size.device import materialise
from distillery.cost.full_size.training import ROWS

CPU = torch.device("cpu")
SIZES = {"batch_size": 1, "resolution_px": 64}


@pytest.fixture(scope="module")
def parts(tiny_teacher):
    return load_architecture(str(tiny_teacher))


@pytest.mark.parametrize("name", ["elr", "lora_distill_lean"])
def test_a_row_runs_as_a_real_iteration(parts, name):
    steps = []
    found = full_size_run.profile_row(
        name, parts, CPU, **SIZES, num_repeats=1, on_step=steps.append
    )
    assert found["status"] == "measured"
    assert found["seconds_per_iteration"] > 0
    assert sum(steps) == 3  # one that makes the optimiser's state, one unmeasured, one measured
    assert found["parameters"]["in_optimiser"] == found["parameters"]["requires_grad"] > 0
    assert found["peak_allocated_bytes"] is None


def test_rows_are_predicted_without_running(parts):
    names = [n for n in ROWS if n.startswith(("full", "lora", "unet", "controlnet_l"))]
    found = {n: full_size_run.profile_row(n, parts, CPU, **SIZES, num_repeats=0) for n in names}
    peaks = {name: row["predicted_bytes"]["peak"] for name, row in found.items()}
    assert all(row["status"] == "predicted only" for row in found.values())
    assert peaks["lora_distill_lean"] < peaks["lora_distill"] < peaks["full_finetune"]
    teachers = {n for n, row in found.items() if row["predicted_bytes"]["teacher"]}
    assert teachers == {"full_distill", "unet_dense_online", "controlnet_loha"}
    one_unet = 4 * sum(p.numel() for p in parts["unet"].parameters())
    assert found["full_distill"]["predicted_bytes"]["teacher"] == one_unet
    # The shared W0 adds no copy: both LoRA rows hold the same weights.
    weights = [found[n]["predicted_bytes"]["weights"] for n in ("lora_finetune", "lora_distill")]
    assert weights[0] == weights[1]


def test_what_does_not_fit_is_not_run(parts, monkeypatch):
    monkeypatch.setattr(full_size_run, "free_bytes", lambda device: 1000)
    found = full_size_run.profile_row("elr", parts, CPU, **SIZES, num_repeats=1)
    assert found["status"] == "does not fit"
    assert "are free" in found["reason"]
    assert found["predicted_bytes"]["peak"] > 1000


def test_running_out_of_memory_is_reported(parts, monkeypatch):
    def explode(*args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(full_size_run, "_measure", explode)
    found = full_size_run.profile_row("elr", parts, CPU, **SIZES, num_repeats=1)
    assert found["status"] == "out of memory"


def test_shared_parameters_stay_shared_when_materialised():
    with torch.device("meta"):
        layers = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])
    layers[1].weight = layers[0].weight
    materialise([layers], CPU)
    assert layers[1].weight is layers[0].weight
    assert not any(p.is_meta for p in layers.parameters())


def test_the_command_writes_circumstances_and_ratios():  # for the shipped teacher
    found = profile.profile("scenes", "lora_distill,full_distill", num_repeats=0)
    assert set(found["ratios"]) == {"lora_distill/full_distill"}
    assert {"date", "device", "versions", "settings"} <= set(found)
    assert json.loads(json.dumps(found)) == found
    assert "lora_distill" in as_text(found)
    assert profile.default_path(found).name == f"{found['date']}-profile-scenes-cpu.json"


def test_inference_rows_are_in_the_same_file(tiny_teacher):
    rows = "elr,inference/controlnet/teacher,inference/controlnet/loha"
    teacher = str(tiny_teacher)
    found = profile.profile(teacher, rows, batch_sizes=(1, 2), resolution_px=32, num_repeats=1)
    assert list(found["rows"]) == rows.split(",")
    loha = found["rows"]["inference/controlnet/loha"]
    assert set(loha["batches"]) == {"1", "2"}
    assert {"seconds_batch1", "seconds_batch2", "macs"} <= set(
        found["ratios"]["inference/controlnet/loha/teacher"]
    )
    assert found["settings"]["clock"] == "processor time of all threads"
    assert json.loads(json.dumps(found)) == found
    text = as_text(found)
    assert "inference/controlnet/loha" in text
    assert "s/it" in text


def test_a_kind_of_rows_can_be_named():
    kinds = {kind: profile.choose_rows(kind) for kind in ("training", "inference", "all")}
    assert kinds["training"] + kinds["inference"] == kinds["all"]
    assert "elr" in kinds["training"]
    assert all(name.startswith("inference/") for name in kinds["inference"])


@pytest.mark.parametrize("text", ["0", "1,", "two", "1 8"])
def test_bad_batch_sizes_are_refused(text):
    with pytest.raises(DistilleryError, match="--batch-sizes"):
        profile.batch_sizes_in(text)
    assert profile.batch_sizes_in("1, 8") == [1, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": "elrr"}, "'elrr' is unknown"),
        ({"rows": "elr", "resolution_px": 60}, "60 is not a multiple of 16"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(DistilleryError, match=message):
        profile.profile("scenes", **arguments, num_repeats=0)
