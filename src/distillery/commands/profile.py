"""`distillery profile`: the papers' cost tables and what sampling costs, at full size.

In: `sd15`, `sd21` or `scenes`, rows, a device, sizes. Out: a dict for JSON; `profile_text` prints
it. Training rows are real training iterations, inference rows evaluations without gradients.
Weights are random; nothing is downloaded. The file is a measurement: it carries date, device and
versions, and no stage reads it as an input of its own.
"""

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.core.progress import bar
from distillery.cost.accounting import load_architecture
from distillery.cost.full_size import inference_run as full_size_inference_run
from distillery.cost.full_size import training_run as full_size_run
from distillery.cost.full_size.inference import INFERENCE_ROWS
from distillery.cost.full_size.ratios import add_images, ratios
from distillery.cost.full_size.training import ROWS
from distillery.cost.profile import device_name

RESULTS = Path("docs/results/profile")
NATIVE_PX = {"sd15": 512, "sd21": 512, "scenes": 64}
KINDS = {
    "all": [*ROWS, *INFERENCE_ROWS],
    "training": list(ROWS),
    "inference": list(INFERENCE_ROWS),
}
CLOCKS = {"cuda": "wall", "cpu": "processor time of all threads"}


def choose_rows(wanted: str) -> list[str]:
    """The names in a comma-separated list, or of a kind; DistilleryError for an unknown one."""
    if wanted in KINDS:
        return KINDS[wanted]
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names or [wanted]:
        if name not in KINDS["all"]:
            known = ", ".join([*KINDS, *KINDS["all"]])
            raise DistilleryError(f"--rows: {name!r} is unknown; use {known}")
    return names


def batch_sizes_in(text: str, option: str = "--batch-sizes") -> list[int]:
    """`1,8` as numbers; DistilleryError for what is none."""
    sizes = [part.strip() for part in text.split(",")]
    for size in sizes:
        if not size.isdecimal() or int(size) < 1:
            raise DistilleryError(f"{option}: {size!r} is not a number from 1; use e.g. 1,8")
    return [int(size) for size in sizes]


def profile(
    preset: str,
    rows: str = "all",
    *,
    device: str = "cpu",
    batch_size: int = 1,
    batch_sizes: Sequence[int] = (1, 8),
    resolution_px: int | None = None,
    num_repeats: int = 3,
) -> dict[str, Any]:
    """Rows by name, by kind, or comma-separated; `num_repeats` 0 predicts and runs nothing.

    `batch_size` is that of training rows, `batch_sizes` are those of inference rows.
    `resolution_px` defaults to the architecture's own. Raises DistilleryError for unknown names, a
    resolution that does not fit, or a device that is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DistilleryError("--device cuda: no CUDA device here; use --device cpu")
    names, place = choose_rows(rows), torch.device(device)
    parts = load_architecture(preset)
    resolution_px = resolution_px or NATIVE_PX.get(preset, 512)
    sizes = {"resolution_px": resolution_px, "num_repeats": num_repeats}
    training = [name for name in names if name in ROWS]
    inference = [name for name in names if name in INFERENCE_ROWS]
    num_runs = (len(training) + len(inference) * len(batch_sizes)) * (num_repeats + 1)
    with bar(num_runs, "profile", unit="run") as progress:
        shared = {**sizes, "on_step": progress.update}
        profiled = {
            name: full_size_run.profile_row(name, parts, place, batch_size=batch_size, **shared)
            for name in training
        }
        profiled |= _infer(inference, parts, place, batch_sizes=batch_sizes, **shared)
    if preset not in ("sd15", "sd21"):
        profiled = {name: {**row, "paper": {}} for name, row in profiled.items()}
    settings = {
        "preset": preset,
        "batch_size": batch_size,
        "batch_sizes": list(batch_sizes),
        **sizes,
        **_conditions(device),
    }
    return {
        **_circumstances(place),
        "settings": settings,
        "rows": profiled,
        "ratios": ratios(profiled),
    }


def _conditions(device: str) -> dict[str, Any]:
    return {
        "clock": CLOCKS[device],
        "num_threads": torch.get_num_threads(),
        "dtype": "float32, but where a row says otherwise",
        "weights": "random",
    }


def _infer(
    names: Sequence[str], parts: Mapping[str, nn.Module], device: torch.device, **options: Any
) -> dict[str, Any]:
    """Group by group; then whole images from what was measured."""
    rows: dict[str, Any] = {}
    for group in dict.fromkeys(INFERENCE_ROWS[name].group for name in names):
        own = [name for name in names if INFERENCE_ROWS[name].group == group]
        rows |= full_size_inference_run.profile_group(own, parts, device, **options)
    add_images(rows)
    return rows


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
    return RESULTS / f"{record['date']}-profile-{preset}-{device}{size}.json"
