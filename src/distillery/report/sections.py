"""Tables of the page, from the same rows as the CSV files.

In: results and table rows. Out: dicts for the templates. Not here: the CSV files, the layout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distillery.report import story, tables
from distillery.report.evidence import Results, label, profile_name

OWN_LABELS = {
    "fid_extrapolated": "FID, bias removed",
    "kid": "KID",
    "prediction_distance": "Distance to teacher's prediction",
    "kid_teacher": "KID to teacher",
    "clip_score": "CLIP score",
    "psnr": "PSNR to teacher, dB",
    "ssim": "SSIM to teacher",
    "reader_colour": "Colours",
    "reader_shape": "Shapes",
    "reader_pair": "Colour and shape",
    "reader_background": "Background",
}
PARAMETER_COLUMNS = {
    "parameters_total": "total",
    "parameters_unet": "U-Net",
    "parameters_adapter": "adapter",
    "parameters_requires_grad": "requires_grad",
    "parameters_in_optimiser": "in optimiser",
    "bytes_on_disk": "size in float32",
    "macs": "MACs",
}
SPEED_COLUMNS = {
    "latency_s": "evaluation, ms",
    "train_step_s": "training step, ms",
    "memory_bytes": "memory, evaluation",
    "train_memory_bytes": "memory, training",
}


def table1(all_results: Sequence[Results], rows: Sequence[tables.Row]) -> dict[str, Any]:
    """The printed table with a column per setting, and our further metrics per setting."""
    printed = tables.read_papers()["elr_table1"]
    pivots = {results.setting: tables.pivot(rows, results.setting) for results in all_results}
    names = list(dict.fromkeys([*printed["rows"], *all_results[0].variants()]))
    variants = [
        {
            "id": variant,
            "label": tables.row_label(variant),
            "paper": {m: printed["rows"].get(variant, {}).get(m) for m in printed["metrics"]},
            "cells": {s: pivot.get(tables.row_name(variant), {}) for s, pivot in pivots.items()},
        }
        for variant in names
    ]
    analytic = tables.pivot(rows, "sd21-analytic")
    shown = {row["metric"] for row in rows if row["ours"] != ""}
    return {
        "table1": {**printed, "variants": variants},
        "settings": [_setting(results, pivots[results.setting]) for results in all_results],
        "own": [
            {"name": name, "label": text, "direction": tables.OWN_METRICS[name][0]}
            for name, text in OWN_LABELS.items()
            if name in shown and name in tables.OWN_METRICS
        ],
        "analytic": _analytic(analytic),
        **_extractor(all_results[0]),
    }


def _setting(results: Results, pivot: Mapping[str, Any]) -> dict[str, Any]:
    count = len(results.seeds)
    seeds = f"{count} training seeds" if count > 1 else "one training seed"
    where = f"committed on {results.date}, {results.machine}" if results.date else "this run"
    ceilings = {n: results.metric("teacher/guided", f"{n}_ceiling") for n in OWN_LABELS}
    return {
        "name": results.setting,
        "about": f"{where}, {seeds}",
        "variants": [
            {"id": v, "label": label(v), "cells": pivot.get(tables.row_name(v), {})}
            for v in results.variants()
        ],
        "ceiling": ceilings if any(ceilings.values()) else None,
    }


def _analytic(pivot: Mapping[str, Any]) -> str:
    values = {name: cells["params"]["ours"] for name, cells in pivot.items()}
    if not values:
        return "not profiled"
    return f"{values['teacher']:.1f}M dense, {values['elr']:.1f}M low-rank"


def _extractor(results: Results) -> dict[str, str]:
    for variant in results.variants():
        if fid := results.metric(variant, "fid"):
            settings = fid["settings"]
            about = f"{settings['extractor']}, {settings['resize']}, n = {fid['n']}"
            notes = "; ".join(settings["notes"])
            return {"extractor": about, "fid_notes": f"{notes[:1].upper()}{notes[1:]}."}
    return {"extractor": "not measured", "fid_notes": ""}


def cost_tables(results: Results) -> list[dict[str, Any]]:
    """Parameters in five columns, and speed with memory."""
    names = results.profile.get("metrics", {})
    models = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    if not models:
        return []
    models.sort(key=lambda m: (m.startswith("sd21"), m != "teacher", m))
    own = [model for model in models if not model.startswith("sd21/")]
    device = results.profile.get("device", "cpu")
    return [
        _cost_table(
            results, "Parameters, counted", models, PARAMETER_COLUMNS,
            "Total: U-Net, text encoder and VAE. MACs: multiply-accumulates of one U-Net "
            "evaluation at the model's own size.",
        ),
        _cost_table(
            results, "Speed and memory", own, SPEED_COLUMNS,
            f"Median of repeated runs on {device}, with the fastest and the slowest. Predicted "
            "memory counts weights, gradients and optimiser state only.",
        ),
    ]  # fmt: skip


def _cost_table(
    results: Results, title: str, models: Sequence[str], columns: Mapping[str, str], note: str
) -> dict[str, Any]:
    rows = [
        {
            "id": model,
            "label": label(model),
            "cells": [_cost_cell(results, model, quantity) for quantity in columns],
        }
        for model in models
    ]
    return {"title": title, "columns": list(columns.values()), "rows": rows, "note": note}


def _cost_cell(results: Results, model: str, quantity: str) -> dict[str, str]:
    if (metric := results.metric(profile_name(model), quantity)) is None:
        return {"text": "—", "small": ""}
    if quantity.endswith("_s"):
        low, value, high = (1000 * metric[k] for k in ("ci_low", "value", "ci_high"))
        return {
            "text": story.number(value),
            "small": f"{story.number(low)} to {story.number(high)}",
        }
    basis = metric["settings"].get("basis", "")
    small = metric["settings"]["basis"] if basis in ("predicted", "measured") else ""
    unit = "B" if "bytes" in quantity else ""
    return {"text": story.si(metric["value"]) + unit, "small": small}


def layers_about(report: Mapping[str, Any]) -> str:
    """One sentence on the decomposition, from its report."""
    layers = report["layers"]
    before, after = (sum(layer[k] for layer in layers) for k in ("params_before", "params_after"))
    errors = sorted(layer["relative_error"] for layer in layers)
    middle = errors[len(errors) // 2]
    return (
        f"{len(layers)} layers became products of two factors: {story.si(before)} parameters in "
        f"them became {story.si(after)}. The median layer lost {middle:.0%} of its norm "
        f"({errors[0]:.0%} to {errors[-1]:.0%}) before any training."
    )
