"""`distillery profile`: every row of the papers' cost tables as a real training iteration.

In: `sd15`, `sd21` or `scenes`, rows, a device, sizes. Out: a dict for JSON, a table for the
terminal. Weights are random; nothing is downloaded. The file is a measurement: it carries date,
device and versions, and no stage reads it as an input of its own.
"""

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers

from distillery.errors import DistilleryError
from distillery.metrics import full_size_run
from distillery.metrics.profiling import device_name
from distillery.models.accounting import load_architecture
from distillery.progress import bar

RESULTS = Path("docs/results/profile")
NATIVE_PX = {"sd15": 512, "sd21": 512, "scenes": 64}
_BYTES = ("weights", "gradients", "optimiser", "teacher", "activations", "peak")
_COLUMNS = ("total", "unet", "adapter", "requires_grad", "in_optimiser")
_CLAIMS = {
    "elr/uni_controlnet": ("elr", "uni_controlnet"),
    "elr_dense/uni_controlnet": ("elr_dense", "uni_controlnet"),
    "lora_distill/full_distill": ("lora_distill", "full_distill"),
    "lora_distill_lean/full_distill": ("lora_distill_lean", "full_distill"),
    "unet_low_rank_cached/unet_dense_online": ("unet_low_rank_cached", "unet_dense_online"),
}


def profile(
    preset: str,
    rows: str = "all",
    *,
    device: str = "cpu",
    batch_size: int = 1,
    resolution_px: int | None = None,
    num_repeats: int = 3,
) -> dict[str, Any]:
    """Rows by name, `all` or comma-separated; `num_repeats` 0 predicts memory and runs nothing.

    `resolution_px` defaults to the architecture's own. Raises DistilleryError for unknown names, a
    resolution that does not fit, or a device that is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DistilleryError("--device cuda: no CUDA device here; use --device cpu")
    names, place = full_size_run.choose_rows(rows), torch.device(device)
    parts = load_architecture(preset)
    resolution_px = resolution_px or NATIVE_PX.get(preset, 512)
    found = {}
    with bar(len(names) * (num_repeats + 1), "profile", unit="step") as progress:
        for place_of_row, name in enumerate(names, 1):
            progress.set_postfix(row=name)
            found[name] = full_size_run.profile_row(
                name, parts, place, batch_size=batch_size, resolution_px=resolution_px,
                num_repeats=num_repeats, on_step=progress.update,
            )  # fmt: skip
            progress.update(place_of_row * (num_repeats + 1) - progress.n)
            if preset not in ("sd15", "sd21"):
                found[name]["paper"] = {}
    settings = {
        "preset": preset,
        "batch_size": batch_size,
        "resolution_px": resolution_px,
        "num_repeats": num_repeats,
        "num_threads": torch.get_num_threads(),
        "dtype": "float32, but where a row says otherwise",
        "weights": "random",
    }
    return {**_circumstances(place), "settings": settings, "rows": found, "ratios": ratios(found)}


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


def ratios(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds and memory of one row over another's, where both are there."""
    found = {}
    for name, (mine, other) in _CLAIMS.items():
        if mine not in rows or other not in rows:
            continue
        pair = [rows[mine], rows[other]]
        peaks = [row["predicted_bytes"]["peak"] for row in pair]
        found[name] = {"predicted_peak": _over(*peaks)}
        keys = ("seconds_per_iteration", "cpu_seconds_per_iteration", "peak_allocated_bytes")
        for key in keys:
            if all(row.get(key) for row in pair):
                found[name][key] = _over(*(row[key] for row in pair))
    return found


def _over(mine: float, other: float) -> float:
    return float(f"{mine / other:.4g}")


def default_path(found: Mapping[str, Any]) -> Path:
    """docs/results/profile/<date>-profile-<preset>-<device>.json; other sizes say which."""
    device, settings = found["device"].lower().replace(" ", "-"), found["settings"]
    preset, px = Path(settings["preset"]).name, settings["resolution_px"]
    size = "" if px == NATIVE_PX.get(preset) else f"-{px}px"
    return RESULTS / f"{found['date']}-profile-{preset}-{device}{size}.json"


def as_text(found: Mapping[str, Any]) -> str:
    """Two tables: time and memory, then parameters; then ratios."""
    settings, rows = found["settings"], found["rows"]
    width = max(len(name) for name in rows) + 2
    lines = [
        f"{settings['preset']} at {settings['resolution_px']} px, batch size "
        f"{settings['batch_size']}, {found['device']}; memory in GB, predicted at the peak",
        f"{'row':<{width}}{'s/it':>9}{'allocated':>11}{'reserved':>10}"
        + "".join(f"{name:>12}" for name in _BYTES)
        + f"{'paper':>8}",
    ]
    lines += [_cost_line(name, row, width) for name, row in rows.items()]
    lines += ["", f"{'row':<{width}}" + "".join(f"{c:>15}" for c in (*_COLUMNS, "on disk"))]
    lines += [_size_line(name, row, width) for name, row in rows.items()]
    lines += [""] * bool(found["ratios"])
    for name, values in found["ratios"].items():
        lines.append(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
    notes = [f"{name}: {row['status']}" for name, row in rows.items() if "reason" in row]
    reasons = [rows[note.partition(":")[0]]["reason"] for note in notes]
    return "\n".join([*lines, *(f"{n}: {r}" for n, r in zip(notes, reasons, strict=True))])


def _cost_line(name: str, row: Mapping[str, Any], width: int) -> str:
    seconds = row.get("seconds_per_iteration")
    shown = f"{seconds:.2f}" if seconds else "-"
    peaks = [_gigabytes(row.get(f"peak_{kind}_bytes")) for kind in ("allocated", "reserved")]
    parts = "".join(f"{_gigabytes(row['predicted_bytes'][kind]):>12}" for kind in _BYTES)
    paper = row["paper"].get("memory_gb", "-")
    return f"{name:<{width}}{shown:>9}{peaks[0]:>11}{peaks[1]:>10}{parts}{paper:>8}"


def _size_line(name: str, row: Mapping[str, Any], width: int) -> str:
    counts = row["parameters"]
    numbers = "".join(f"{counts[column] / 1e6:>14.2f}M" for column in _COLUMNS)
    return f"{name:<{width}}{numbers}{counts['bytes_on_disk'] / 1e6:>12.1f} MB"


def _gigabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"
