"""Costs at the papers' own sizes: counted, predicted, or measured on a machine and committed.

In: this run's profile, whose models at full size are named `<architecture>/...`, and the files
that `distillery profile` wrote to `docs/results/profile/`. Out: `Results` per architecture and
basis, with settings such as `sd15-cuda` and `sd15-analytic`; what was measured at another size than
the architecture's own, in half precision, with recomputed activations, or trained with more than
one image a step, stands apart, as `sd15-cpu-256px` and `sd15-cuda-batch8-bf16-checkpointing`.
Measured comes before predicted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillery.families import CONTROL, TRAINED
from distillery.report.evidence import THIS_RUN, Results
from distillery.report.profile_file import read_profile

ARCHITECTURES = ("sd15", "sd21", "sd-turbo")
ANALYTIC = "analytic"
FOLDER = "profile"
OWN_PX = 512  # of all architectures
OWN_SIZE, FULL_SIZE, HALF_PRECISION = "own size", "full size", "full size in half precision"
_PLACES = {
    OWN_SIZE: (), FULL_SIZE: ("-cuda", f"-{ANALYTIC}"), HALF_PRECISION: ("-cuda-fp16",),
}  # fmt: skip
INFERENCE = "inference/"
NARROW = ("bf16", "fp16")  # stand apart: the papers' figures are of float32, or do not say


def own_size(run: Results) -> Results:
    """The run with the models of its own profile only."""
    costs = {k: v for k, v in _costs(run).items() if k.split("/")[0] not in ARCHITECTURES}
    return dataclasses.replace(run, profile={**run.profile, "metrics": costs})


def read_full_size(run: Results, results_folder: Path) -> list[Results]:
    """Every architecture's costs, measured ones first, each joined with what is counted."""
    costs: dict[str, list[Results]] = {"measured": [], ANALYTIC: []}
    for path in sorted((results_folder / FOLDER).glob("*.json"), reverse=True):
        for results in _read_file(path):
            place = ANALYTIC if f"-{ANALYTIC}" in results.setting else "measured"
            costs[place].append(results)
    costs[ANALYTIC] += _of_run(run)
    return _joined([*costs["measured"], *costs[ANALYTIC]])


def decides(results: Results, at: str = FULL_SIZE) -> bool:
    """Whether claims `at` this size may look here: on a GPU or on paper, at the papers' size."""
    return results.setting.endswith(_PLACES[at])


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
    values = read_profile(path)
    told, device = values["settings"], values["device"]
    architecture = Path(told["preset"]).name
    px, batch_size = told.get("resolution_px") or OWN_PX, told.get("batch_size") or 1
    apart = [told["dtype"]] if told["dtype"] in NARROW else []
    if told.get("checkpointing"):
        apart.append("checkpointing")
    settings: dict[str | None, dict[str, Any]] = {}
    for name, row in values["rows"].items():
        for quantity, metric in _quantities(row, batch_size).items():
            setting = _setting(architecture, device, px, apart, metric["settings"])
            key = f"{architecture}/{_model(name)}/{quantity}"
            settings.setdefault(setting, {})[key] = metric
    return [
        _results(setting, metrics, values.get("date"), device)
        for setting, metrics in settings.items()
        if setting
    ]


def _model(row: str) -> str:
    """`controlnet/loha` of the rows `controlnet_loha` and `inference/controlnet/loha`,
    `guidance/lora_distill` of `lora_distill`."""
    if row.startswith(INFERENCE):
        return row.removeprefix(INFERENCE)
    family = next((f for f in TRAINED.values() if row.startswith(f.profile_rows)), CONTROL)
    return f"{family.name}/{row.removeprefix(f'{family.name}_')}"


def _quantities(row: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """A row's costs in the form of metrics; what it does not have is left out."""
    return _of_evaluation(row) if "batches" in row else _of_training(row, batch_size)


def _of_training(row: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    metrics = {
        name if name.startswith("bytes") else f"parameters_{name}": _metric(count, "counted")
        for name, count in (row.get("parameters") or {}).items()
    }
    if seconds := row.get("seconds_per_iteration"):
        ends = row.get("seconds_range") or (seconds, seconds)
        metrics["train_step_s"] = _metric(seconds, "measured", ends, images_a_step=batch_size)
    if peak := row.get("peak_allocated_bytes"):
        metrics["train_memory_bytes"] = _metric(peak, "measured", images_a_step=batch_size)
    elif predicted := row.get("predicted_bytes"):
        peak = predicted["peak"]
        metrics["train_memory_bytes"] = _metric(peak, "predicted", images_a_step=batch_size)
    return metrics


def _of_evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
    """Times are per image; those of other batch sizes than 1 say so: `latency_batch8_s`."""
    about = {"per": row["per"]}
    metrics = {
        "parameters_evaluated": _metric(row["parameters"]["total"], "counted", **about),
        "macs": _metric(row["macs"], "counted", **about),
    }
    for batch, entry in row["batches"].items():
        infix, count = "" if batch == "1" else f"_batch{batch}", int(batch)
        sizes = {**about, "batch_size": count}
        if seconds := entry.get("seconds_per_image"):
            ends = [end / count for end in entry["seconds_range"]]
            num_runs = len(entry["samples_s"])
            metrics[f"latency{infix}_s"] = _metric(seconds, "measured", ends, num_runs, **sizes)
        if image := entry.get("image"):
            # Put together from measured parts, and not measured as a whole.
            metrics[f"image{infix}_s"] = _metric(
                image["seconds_per_image"], "predicted", image["seconds_range"],
                how=image["how"], parts="measured",
            )  # fmt: skip
        peak = entry.get("peak_allocated_bytes")
        metrics[f"memory{infix}_bytes"] = _metric(
            peak or entry["predicted_bytes"]["peak"], "measured" if peak else "predicted", **sizes
        )
    return metrics


def _metric(
    value: float, basis: str, ends: Sequence[float] = (), n: int = 1, **settings: Any
) -> dict[str, Any]:
    low, high = ends or (value, value)
    return {
        "value": value, "std": 0.0, "ci_low": low, "ci_high": high, "n": n, "seeds": [],
        "settings": {"basis": basis, **settings},
    }  # fmt: skip


def _setting(
    architecture: str,
    device: str,
    px: int,
    apart: Sequence[str],
    settings: Mapping[str, Any],
) -> str | None:
    """None for a prediction at another size than the architecture's own, or set apart."""
    is_own, basis = px == OWN_PX, settings.get("parts", settings["basis"])
    if apart and basis != "measured":
        return None
    images_a_step = settings.get("images_a_step", 1)
    batch = "" if images_a_step == 1 else f"-batch{images_a_step}"
    if basis == "counted" or (basis == "predicted" and is_own):
        return f"{architecture}-{ANALYTIC}{batch}"
    if basis == "predicted":
        return None
    place = f"{architecture}-{'cpu' if 'cpu' in device.lower() else 'cuda'}"
    return "-".join([f"{place}{'' if is_own else f'-{px}px'}{batch}", *apart])


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
        dates = sorted({*(part.date or "").split(", "), *(known.date or "").split(", ")} - {""})
        joined[part.setting] = dataclasses.replace(
            known, profile={"metrics": metrics}, date=", ".join(dates) or None
        )
    return [_with_model_count(results) for results in joined.values()]


def _with_model_count(results: Results) -> Results:
    metrics = dict(_costs(results))
    for model in results.profiled():
        parts = [metrics.get(f"{model}/parameters_{part}") for part in ("unet", "adapter")]
        if all(parts):
            count = sum(part["value"] for part in parts)
            metrics[f"{model}/parameters_model"] = _metric(count, "counted")
    return dataclasses.replace(results, profile={"metrics": metrics})
