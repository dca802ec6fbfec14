"""Costs at the papers' own sizes: counted, predicted, or measured on a machine and committed.

In: this run's profile, whose models at full size are named `<architecture>/...`, and the files
that `distillery profile` wrote to `docs/results/profile/`. Out: `Results` per architecture and
basis, with settings such as `sd15-cuda` and `sd15-analytic`. Measured comes before predicted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillery.artifacts import read_json
from distillery.errors import DistilleryError
from distillery.report.evidence import THIS_RUN, Results

ARCHITECTURES = ("sd15", "sd21", "sd-turbo")
ANALYTIC = "analytic"
FOLDER = "profile"
_REMEDY = "write it again with distillery profile --json"


def own_size(run: Results) -> Results:
    """The run with the models of its own profile only."""
    costs = {k: v for k, v in _costs(run).items() if k.split("/")[0] not in ARCHITECTURES}
    return dataclasses.replace(run, profile={**run.profile, "metrics": costs})


def read_full_size(run: Results, results_folder: Path) -> list[Results]:
    """Every architecture's costs, measured ones first, each joined with what is counted."""
    found: dict[str, list[Results]] = {"measured": [], ANALYTIC: []}
    for path in sorted((results_folder / FOLDER).glob("*.json"), reverse=True):
        for results in _read_file(path):
            place = ANALYTIC if results.setting.endswith(ANALYTIC) else "measured"
            found[place].append(results)
    found[ANALYTIC] += _of_run(run)
    return _joined([*found["measured"], *found[ANALYTIC]])


def _of_run(run: Results) -> list[Results]:
    costs = _costs(run)
    return [
        _results(f"{architecture}-{ANALYTIC}", metrics, None, None)
        for architecture in ARCHITECTURES
        if (metrics := {k: v for k, v in costs.items() if k.startswith(f"{architecture}/")})
    ]


def _costs(run: Results) -> Mapping[str, Any]:
    return run.profile.get("metrics", {})


def _read_file(path: Path) -> list[Results]:
    values = read_json(path, remedy=_REMEDY)
    try:
        device, architecture = values["device"], Path(values["settings"]["preset"]).name
        settings: dict[str, dict[str, Any]] = {}
        for name, row in values["rows"].items():
            for quantity, metric in _quantities(row).items():
                setting = _setting(architecture, device, metric["settings"]["basis"])
                model = f"{architecture}/{_model(name)}"
                settings.setdefault(setting, {})[f"{model}/{quantity}"] = metric
    except (KeyError, TypeError, AttributeError) as error:
        raise DistilleryError(f"{path}: not a profile ({error!r}); {_REMEDY}") from None
    return [
        _results(setting, metrics, values.get("date"), str(device))
        for setting, metrics in settings.items()
    ]


def _model(row: str) -> str:
    """`controlnet/loha` of the row `controlnet_loha`, `guidance/lora_distill` of `lora_distill`."""
    for start in ("controlnet", "unet"):
        if row.startswith(f"{start}_"):
            return f"{start}/{row.removeprefix(f'{start}_')}"
    is_guidance = row.startswith(("lora_", "full_"))
    return f"{'guidance' if is_guidance else 'control'}/{row}"


def _quantities(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's costs in the form of metrics; what it does not have is left out."""
    found = {
        name if name.startswith("bytes") else f"parameters_{name}": _metric(count, "counted")
        for name, count in row.get("parameters", {}).items()
    }
    if seconds := row.get("seconds_per_iteration"):
        low, high = row.get("seconds_range", (seconds, seconds))
        found["train_step_s"] = _metric(seconds, "measured", low, high)
    if peak := row.get("peak_allocated_bytes"):
        found["train_memory_bytes"] = _metric(peak, "measured")
    elif "predicted_bytes" in row:
        found["train_memory_bytes"] = _metric(row["predicted_bytes"]["peak"], "predicted")
    return found


def _metric(
    value: float, basis: str, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    ends = {"ci_low": value if low is None else low, "ci_high": value if high is None else high}
    return {"value": value, "std": 0.0, **ends, "n": 1, "seeds": [], "settings": {"basis": basis}}


def _setting(architecture: str, device: str, basis: str) -> str:
    if basis != "measured":
        return f"{architecture}-{ANALYTIC}"
    return f"{architecture}-{'cpu' if 'cpu' in str(device).lower() else 'cuda'}"


def _results(
    setting: str, metrics: Mapping[str, Any], date: str | None, machine: str | None
) -> Results:
    return Results(THIS_RUN, setting, (), {}, {"metrics": dict(metrics)}, date, machine)


def _joined(parts: Sequence[Results]) -> list[Results]:
    """One `Results` per setting, the earlier ones winning, with U-Net and adapter as one count."""
    joined: dict[str, Results] = {}
    for part in parts:
        if (known := joined.get(part.setting)) is None:
            joined[part.setting] = part
            continue
        metrics = {**_costs(part), **_costs(known)}
        joined[part.setting] = dataclasses.replace(known, profile={"metrics": metrics})
    return [_with_model_count(results) for results in joined.values()]


def _with_model_count(results: Results) -> Results:
    metrics = dict(_costs(results))
    for model in results.profiled():
        parts = [metrics.get(f"{model}/parameters_{part}") for part in ("unet", "adapter")]
        if all(parts):
            count = sum(part["value"] for part in parts)
            metrics[f"{model}/parameters_model"] = _metric(count, "counted")
    return dataclasses.replace(results, profile={"metrics": metrics})
