"""`distillery profile`: the papers' cost tables and what sampling costs, at full size.

In: `sd15`, `sd21` or `scenes`, rows, a device, sizes. Out: a dict for JSON; `profile_text` prints
it. Training rows are real training iterations, inference rows evaluations without gradients.
Weights are random; nothing is downloaded. The file is a measurement: it carries date, device and
versions, and no stage reads it as an input of its own.
"""

import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.core.precision import read_precision
from distillery.core.progress import bar
from distillery.core.runtime import KINDS as RUNTIMES
from distillery.core.runtime import Kind
from distillery.cost.accounting import load_architecture
from distillery.cost.full_size import inference_run as full_size_inference_run
from distillery.cost.full_size import training_run as full_size_run
from distillery.cost.full_size.inference import INFERENCE_ROWS, PLANNED, planned_unet
from distillery.cost.full_size.ratios import add_images, ratios
from distillery.cost.full_size.runtimes import usable_runtimes
from distillery.cost.full_size.setup import Predictions, Setup, usual_folder
from distillery.cost.full_size.training import ROWS
from distillery.cost.profile import device_name

RESULTS = Path("docs/results/profile")
NATIVE_PX = {"sd15": 512, "sd21": 512, "scenes": 64}
KINDS = {
    "all": [*ROWS, *INFERENCE_ROWS],
    "training": list(ROWS),
    "inference": list(INFERENCE_ROWS),
}
OnRows = Callable[[dict[str, Any]], object]
CLOCKS = {"cuda": "wall", "cpu": "processor time of all threads"}


def choose_rows(wanted: str, plan: Path | None = None) -> list[str]:
    """The names in a comma-separated list, or of a kind; DistilleryError for an unknown one.

    The planned U-Net is there where a plan is.
    """
    if wanted in KINDS:
        return [name for name in KINDS[wanted] if name != PLANNED or plan is not None]
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names or [wanted]:
        if name not in KINDS["all"]:
            known = ", ".join([*KINDS, *KINDS["all"]])
            raise DistilleryError(f"--rows: {name!r} is unknown; use {known}")
        if name == PLANNED and plan is None:
            raise DistilleryError(f"--rows: {name} needs --plan, a file of distillery ranks --out")
    return names


def batch_sizes_in(text: str, option: str = "--batch-sizes") -> list[int]:
    """`1,8` as numbers, each once; DistilleryError for what is none."""
    sizes = [part.strip() for part in text.split(",")]
    for size in sizes:
        if not size.isdecimal() or int(size) < 1:
            raise DistilleryError(f"{option}: {size!r} is not a number from 1; use e.g. 1,8")
    return list(dict.fromkeys(int(size) for size in sizes))


def runtimes_in(text: str) -> tuple[Kind, ...]:
    """`eager,graph` as names; DistilleryError for one that is none."""
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in RUNTIMES:
            raise DistilleryError(f"--runtime: {name!r} is none of {', '.join(RUNTIMES)}")
    return tuple(dict.fromkeys(names))


def profile(
    preset: str,
    rows: str = "all",
    *,
    device: str = "cpu",
    batch_size: int = 1,
    batch_sizes: Sequence[int] = (1, 8),
    resolution_px: int | None = None,
    num_repeats: int = 3,
    dtype: str = "fp32",
    weights: str = "fp32",
    checkpointing: bool = False,
    runtimes: Sequence[Kind] = ("eager",),
    plan: Path | None = None,
    on_rows: OnRows = lambda record: None,
) -> dict[str, Any]:
    """Rows by name, by kind, or comma-separated; `num_repeats` 0 predicts and runs nothing.

    `batch_size` is that of training rows, `batch_sizes` are those of inference rows.
    `weights` are those that train: fp32, or bf16, of which memory alone is predicted; with
    `checkpointing` training rows recompute their activations.
    `resolution_px` defaults to the architecture's own. `plan` is a file of `distillery ranks`, for
    the planned U-Net. `on_rows` is given what there is so far after every training row and group
    of evaluations. Raises DistilleryError for unknown names, a resolution that does not fit, or a
    device that is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DistilleryError("--device cuda: no CUDA device here; use --device cpu")
    dtype = read_precision(dtype, "--dtype")
    require_weights(weights, dtype, is_run=num_repeats > 0)
    names, parts = choose_rows(rows, plan), load_architecture(preset)
    if plan is not None:
        parts["planned"] = planned_unet(parts["unet"], plan)
    place = torch.device(device)
    setup = Setup(
        place, resolution_px or NATIVE_PX.get(preset, 512), batch_size, tuple(batch_sizes),
        num_repeats, dtype, weights, checkpointing,
        usable_runtimes(runtimes, place) if num_repeats else tuple(runtimes),
        Predictions(usual_folder()),
    )  # fmt: skip
    settings = {"preset": preset, **_settings(setup)}

    def record(profiled: Mapping[str, Any]) -> dict[str, Any]:
        if preset not in ("sd15", "sd21"):
            profiled = {name: {**row, "paper": {}} for name, row in profiled.items()}
        return {
            **_circumstances(setup.device),
            "settings": {**settings, **_conditions(device)},
            "rows": profiled,
            "ratios": ratios(profiled),
        }

    return record(_run(names, parts, setup, lambda rows: on_rows(record(rows))))


def require_weights(weights: str, dtype: str, *, is_run: bool) -> None:
    """Trained weights in bf16 are predicted, and computed with in bf16."""
    if weights == "fp32":
        return
    if weights != "bf16":
        raise DistilleryError(f"--weights {weights}: use fp32 or bf16")
    if dtype != "bf16":
        raise DistilleryError(f"--weights bf16: needs --dtype bf16, not {dtype}")
    if is_run:
        raise DistilleryError("--weights bf16: is predicted, not timed; add --repeats 0")


def _run(
    names: Sequence[str], parts: Mapping[str, nn.Module], setup: Setup, on_rows: OnRows
) -> dict[str, Any]:
    """Training rows one by one, then inference rows by group."""
    training = [name for name in names if name in ROWS]
    inference = [name for name in names if name in INFERENCE_ROWS]
    num_jobs = len(training) + len(inference) * len(setup.batch_sizes)
    with bar(
        num_jobs * len(setup.runtimes) * (setup.num_repeats + 1), "profile", unit="run"
    ) as progress:
        told, found = replace(setup, on_step=progress.update), {}
        for name in training:
            found[name] = full_size_run.profile_row(name, parts, told)
            on_rows(found)
        for group in dict.fromkeys(INFERENCE_ROWS[name].group for name in inference):
            own = [name for name in inference if INFERENCE_ROWS[name].group == group]
            found |= full_size_inference_run.profile_group(own, parts, told)
            add_images(found)  # whole images, of what is measured by now
            on_rows(found)
        return found


def _settings(setup: Setup) -> dict[str, Any]:
    return {
        "batch_size": setup.batch_size,
        "batch_sizes": list(setup.batch_sizes),
        "resolution_px": setup.resolution_px,
        "num_repeats": setup.num_repeats,
        "dtype": setup.dtype,
        **({"weights": setup.weights} if setup.weights != "fp32" else {}),
        **({"checkpointing": True} if setup.checkpointing else {}),
        "runtimes": list(setup.runtimes),
    }


def _conditions(device: str) -> dict[str, Any]:
    return {
        "clock": CLOCKS[device],
        "num_threads": torch.get_num_threads(),
        "training": "mixed precision where dtype is not fp32",
        "weights": "random",
    }


def _circumstances(device: torch.device) -> dict[str, Any]:
    modules = (torch, diffusers, transformers, peft)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(device),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in modules},
        },
    }


def default_path(record: Mapping[str, Any]) -> Path:
    """docs/results/profile/<date>-profile-<preset>-<device>.json; other sizes say which."""
    device, settings = record["device"].lower().replace(" ", "-"), record["settings"]
    preset, px = Path(settings["preset"]).name, settings["resolution_px"]
    size = "" if px == NATIVE_PX.get(preset) else f"-{px}px"
    form = "" if settings["dtype"] == "fp32" else f"-{settings['dtype']}"
    batch = "" if settings["batch_size"] == 1 else f"-batch{settings['batch_size']}"
    recomputed = "-checkpointing" if settings.get("checkpointing") else ""
    about = f"{preset}-{device}{batch}{size}{form}{recomputed}"
    return RESULTS / f"{record['date']}-profile-{about}.json"
