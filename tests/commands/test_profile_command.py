"""Rows run on a tiny teacher; what does not fit says so and is predicted."""

import json
from dataclasses import replace

import pytest
import torch

from distillery import cli
from distillery.commands import profile
from distillery.commands.profile_text import as_text
from distillery.core import runtime
from distillery.core.errors import DistilleryError
from distillery.core.runtime import CompileError
from distillery.cost.accounting import load_architecture
from distillery.cost.full_size import fit, runtimes
from distillery.cost.full_size import training_run as full_size_run
from distillery.cost.full_size.device import materialise
from distillery.cost.full_size.inference import PLANNED
from distillery.cost.full_size.inference_run import profile_group
from distillery.cost.full_size.setup import Predictions, Setup
from distillery.cost.full_size.training import ROWS
from distillery.cost.full_size.training_run import predicted_peak

CPU = torch.device("cpu")
SETUP = Setup(CPU, resolution_px=64, num_repeats=1)


@pytest.fixture(autouse=True)
def _own_predictions(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def parts(tiny_teacher):
    return load_architecture(str(tiny_teacher))


@pytest.mark.parametrize("name", ["elr", "lora_distill_lean"])
def test_a_row_runs_as_a_real_iteration(parts, name):
    steps = []
    found = full_size_run.profile_row(name, parts, replace(SETUP, on_step=steps.append))
    assert found["status"] == "measured"
    assert found["seconds_per_iteration"] > 0
    assert found["runtime"] == "eager"
    assert sum(steps) == 2  # one unmeasured, one measured
    assert found["parameters"]["in_optimiser"] == found["parameters"]["requires_grad"] > 0
    assert found["peak_allocated_bytes"] is None


def test_rows_are_predicted_without_running(parts):
    names = [n for n in ROWS if n.startswith(("full", "lora", "unet", "controlnet_l"))]
    found = {n: full_size_run.profile_row(n, parts, replace(SETUP, num_repeats=0)) for n in names}
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
    found = full_size_run.profile_row("elr", parts, SETUP)
    assert found["status"] == "does not fit"
    assert "are free" in found["reason"]
    assert found["predicted_bytes"]["peak"] > 1000


def test_running_out_of_memory_is_reported(parts, monkeypatch):
    def explode(*args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(full_size_run, "_measure", explode)
    found = full_size_run.profile_row("elr", parts, SETUP)
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


def test_all_runtimes_stand_in_one_file_and_the_quickest_counts(parts, monkeypatch, capsys):
    for module in (runtimes, runtime):
        monkeypatch.setattr(module, "usable", lambda kind, device: kind)
    slow = {"graph": 2.0, "eager": 1.0}
    monkeypatch.setattr(runtimes, "captured", lambda run, kind, num_warm_up: run)
    setup = replace(SETUP, runtimes=("graph", "eager"), dtype="bf16")
    row = full_size_run.profile_row("unet_low_rank_cached", parts, setup)
    assert set(row["runtimes"]) == set(slow)
    times = {kind: found["seconds_per_iteration"] for kind, found in row["runtimes"].items()}
    assert row["runtime"] == min(times, key=times.get)
    assert row["seconds_per_iteration"] == min(times.values())
    name = "inference/unet/low_rank"
    entry = profile_group([name], parts, replace(setup, batch_sizes=(1,)))[name]["batches"]["1"]
    assert set(entry["runtimes"]) == set(slow)
    assert entry["samples_s"] == entry["runtimes"][entry["runtime"]]["samples_s"]


def test_a_runtime_that_is_not_here_is_measured_as_another_and_said_once(tiny_teacher, capsys):
    rows, options = "elr,inference/unet/dense", {"batch_sizes": (1,), "resolution_px": 64}
    both = ("graph", "eager")
    found = profile.profile(str(tiny_teacher), rows, runtimes=both, num_repeats=1, **options)
    elr, dense = found["rows"].values()
    assert list(elr["runtimes"]) == list(dense["batches"]["1"]["runtimes"]) == ["eager"]
    assert found["settings"]["runtimes"] == ["eager"]
    assert capsys.readouterr().err.count("runtime graph") == 1


def test_a_row_that_no_runtime_runs_is_predicted_and_the_next_goes_on(
    tiny_teacher, monkeypatch, capsys
):
    def refuse(job):
        raise CompileError("no such operator")

    monkeypatch.setattr(profile, "usable_runtimes", lambda kinds, device: tuple(kinds))
    monkeypatch.setattr(runtimes, "with_compiled_blocks", lambda job: lambda: refuse(job))
    found = profile.profile(
        str(tiny_teacher), "elr,inference/unet/dense", runtimes=("compile",), num_repeats=1,
        batch_sizes=(1,), resolution_px=64,
    )  # fmt: skip
    elr, dense = found["rows"].values()
    assert elr["status"] == dense["batches"]["1"]["status"] == "predicted only"
    assert "can't be compiled (no such operator)" in capsys.readouterr().err
    assert "elr" in as_text(found)


def test_narrow_numbers_need_less_memory_for_activations(parts):
    setup = replace(SETUP, num_repeats=0, batch_size=16)
    rows = [
        full_size_run.profile_row("unet_low_rank_cached", parts, replace(setup, dtype=dtype))
        for dtype in ("fp32", "bf16")
    ]
    wide, narrow = (row["predicted_bytes"] for row in rows)
    assert narrow["weights"] == wide["weights"]
    assert 0.4 * wide["saved"] < narrow["saved"] < 0.9 * wide["saved"]


def test_predictions_are_made_once_and_kept(tmp_path):
    made = []

    def predict() -> dict[str, int]:
        made.append(1)
        return {"peak": 5}

    for _ in range(2):
        kept = Predictions(tmp_path)
        assert [kept.get({"row": "a"}, predict) for _ in range(2)] == [{"peak": 5}] * 2
    assert kept.get({"row": "b"}, predict) == {"peak": 5}
    assert len(made) == 2


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_recomputed_activations_need_less_memory(parts, dtype):
    setup = replace(SETUP, batch_size=8, dtype=dtype)
    kept, recomputed = (
        predicted_peak("full_finetune", parts, replace(setup, checkpointing=checkpointing))
        for checkpointing in (False, True)
    )
    assert recomputed < 0.9 * kept


def test_the_command_profiles_with_recomputed_activations(tiny_teacher, capsys, tmp_path):
    written = tmp_path / "profile.json"
    for told in ([], ["--checkpointing"]):
        with pytest.raises(SystemExit):
            cli.main(["profile", "--preset", str(tiny_teacher), "--rows", "full_finetune",
                      "--resolution", "64", "--repeats", "0", "--batch", "8", *told,
                      "--json", str(written.with_suffix(f".{len(told)}"))])  # fmt: skip
    assert "batch size 8, checkpointing" in capsys.readouterr().out
    plain, recomputed = (json.loads(written.with_suffix(f".{n}").read_text()) for n in (0, 1))
    assert recomputed["settings"]["checkpointing"]
    assert (
        profile.default_path(recomputed).stem == f"{profile.default_path(plain).stem}-checkpointing"
    )
    peaks = [
        found["rows"]["full_finetune"]["predicted_bytes"]["peak"] for found in (recomputed, plain)
    ]
    assert peaks[0] < 0.9 * peaks[1]


@pytest.fixture
def _a_sample_takes_3_gb(monkeypatch):
    def peak(name, parts, setup):
        return (1e9 if setup.checkpointing else 3e9) * setup.batch_size

    monkeypatch.setattr(fit, "predicted_peak", peak)


@pytest.mark.usefixtures("_a_sample_takes_3_gb")
@pytest.mark.parametrize(
    ("memory_gb", "said"),
    [
        (60, ("16", "-", 1, "false")),
        (30, ("8", "-", 2, "false")),
        (10, ("2", "8", 2, "true")),
        (1.5, None),
    ],
)  # fmt: skip
def test_the_command_says_what_fits_and_what_to_set(tiny_teacher, capsys, memory_gb, said):
    with pytest.raises(SystemExit) as raised:
        cli.main(["profile", "--preset", str(tiny_teacher), "--rows", "elr", "--resolution", "64",
                  "--batch", "16", "--memory-gb", str(memory_gb)])  # fmt: skip
    assert raised.value.code == 0
    line = capsys.readouterr().out.splitlines()[-1]
    if said is None:
        assert line.split()[1:] == ["0", "0", "does", "not", "fit"]
        return
    plain, recomputed, num_parts, checkpointing = said
    assert line.split()[1:3] == [plain, recomputed]
    assert line.endswith(
        f"batch_size: 16, accumulate_steps: {num_parts}, gradient_checkpointing: {checkpointing}, "
        "precision: fp32"
    )


@pytest.mark.usefixtures("_a_sample_takes_3_gb")
def test_what_fits_with_recomputed_activations_says_so(tiny_teacher, capsys):
    with pytest.raises(SystemExit):
        cli.main(["profile", "--preset", str(tiny_teacher), "--rows", "elr", "--resolution", "64",
                  "--batch", "16", "--memory-gb", "60", "--dtype", "bfloat16", "--checkpointing",
                  "--device", "cuda"])  # fmt: skip
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].split()[1] == "-"
    assert out.rstrip().endswith("gradient_checkpointing: true, precision: bf16")
    assert "--dtype: bfloat16 is read as bf16; write that" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "inference"], "--rows inference: --memory-gb fits training steps"),
        (["--rows", "inference/unet/dense"], "none is named; use training, "),
        (["--runtime", "compile"], "--runtime: nothing is run with --memory-gb"),
        (["--memory-gb", "inf"], "--memory-gb: inf is no size"),
    ],
)
def test_what_does_not_go_with_a_size_is_refused(tiny_teacher, capsys, options, said):
    with pytest.raises(SystemExit) as raised:
        cli.main(["profile", "--preset", str(tiny_teacher), "--memory-gb", "8", *options])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_weights_in_bfloat16_are_predicted_and_never_timed(tiny_teacher, capsys):
    asked = ["profile", "--preset", str(tiny_teacher), "--rows", "full_finetune",
             "--resolution", "64", "--weights"]  # fmt: skip
    for options, said in (
        (["bf16"], "--weights bf16: needs --dtype bf16, not fp32"),
        (["bf16", "--dtype", "bf16"], "--weights bf16: is predicted, not timed; add --repeats 0"),
        (["fp8"], "--weights fp8: use fp32 or bf16"),
    ):
        with pytest.raises(SystemExit) as raised:
            cli.main([*asked, *options])
        assert raised.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.usefixtures("_a_sample_takes_3_gb")
def test_narrow_weights_are_among_what_to_set(tiny_teacher, capsys):
    with pytest.raises(SystemExit):
        cli.main(["profile", "--preset", str(tiny_teacher), "--rows", "elr", "--resolution", "64",
                  "--batch", "16", "--memory-gb", "60", "--dtype", "bf16", "--weights",
                  "bf16"])  # fmt: skip
    assert capsys.readouterr().out.rstrip().endswith("precision: bf16, weights: bf16")


def test_a_kind_of_rows_can_be_named():
    kinds = {kind: profile.choose_rows(kind) for kind in ("training", "inference", "all")}
    assert kinds["training"] + kinds["inference"] == kinds["all"]
    assert PLANNED not in kinds["all"]
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
        ({"rows": "inference/unet/planned"}, "needs --plan"),
        ({"rows": "elr", "dtype": "half"}, "--dtype half: use one of fp32, bf16, fp16"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(DistilleryError, match=message):
        profile.profile("scenes", **arguments, num_repeats=0)
