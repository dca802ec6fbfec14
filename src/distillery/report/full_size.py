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
_COUNTED = ("parameters_", "bytes_on_disk", "macs")


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
        device, rows = values["device"], values["rows"]
        settings: dict[str, dict[str, Any]] = {}
        for name, row in rows.items():
            for quantity, metric in _quantities(row, values).items():
                setting = _setting(name.split("/")[0], device, metric["settings"]["basis"])
                settings.setdefault(setting, {})[f"{name}/{quantity}"] = metric
    except (KeyError, TypeError, AttributeError) as error:
        raise DistilleryError(f"{path}: not a profile ({error!r}); {_REMEDY}") from None
    return [
        _results(setting, metrics, values.get("date"), str(device))
        for setting, metrics in settings.items()
    ]


def _quantities(row: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's quantities in the form of metrics; bare numbers are predicted, or counted."""
    found = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and "value" in value and value["value"] is not None:
            found[name] = _metric(name, **{k: value[k] for k in value if k in _FIELDS})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = _metric(name, value)
    return found


_FIELDS = ("value", "std", "ci_low", "ci_high", "n", "seeds", "settings", "basis")


def _metric(
    name: str,
    value: float,
    std: float = 0.0,
    ci_low: float | None = None,
    ci_high: float | None = None,
    n: int = 1,
    seeds: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
    basis: str | None = None,
) -> dict[str, Any]:
    usual = "counted" if name.startswith(_COUNTED) else "predicted"
    settings = {**(settings or {}), "basis": basis or (settings or {}).get("basis", usual)}
    low, high = (value if bound is None else bound for bound in (ci_low, ci_high))
    return {"value": value, "std": std, "ci_low": low, "ci_high": high, "n": n,
            "seeds": list(seeds), "settings": settings}  # fmt: skip


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
            metrics[f"{model}/parameters_model"] = _metric("parameters_model", count)
    return dataclasses.replace(results, profile={"metrics": metrics})
