"""What models cost, as tables of the page.

In: results, profiles at full size. Out: dicts for the template. Not here: the CSV files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distillery.families.names import label
from distillery.report import story
from distillery.report.evidence import Results
from distillery.report.prices import PARAMETERS, SPEED, Cost

FULL_SIZE = "At full size"


def cost_tables(run: Results, full_size: Sequence[Results]) -> list[dict[str, Any]]:
    """Parameters in five columns, speed and memory: of this run's models, then at full size.

    `run` holds the models at their own size only.
    """
    device = run.profile.get("device", "cpu")
    tables = [
        _table(
            run, "Parameters, counted", PARAMETERS,
            "Total: U-Net, ControlNet or adapter, text encoder and VAE, as they train: a LoRA "
            "beside its base. Trainable has gradients; trained is what the optimiser changes. As "
            "evaluated: what one evaluation goes through, a LoRA fused, a ControlNet alone. MACs: "
            "multiply-accumulates of that evaluation at the model's own size.",
        ),
        _table(
            run, "Speed and memory", SPEED,
            f"{_repeats(run)} on {device}. A ControlNet is timed alone; the guided teacher with "
            "ControlNet is all of a sampling step, with both of its prompts. Predicted memory says "
            "what it leaves out in metrics/profile.json.",
        ),
    ]  # fmt: skip
    for results in full_size:
        where = f"Measured on {results.machine}, {results.date}." if results.machine else ""
        where += " Evaluations on a CPU in processor time." * ("-cpu" in results.setting)
        note = where if not results.setting.endswith("analytic") else "Without weights."
        title = f"{FULL_SIZE}, {results.setting}"
        tables += [_table(results, f"{title}: parameters", PARAMETERS, note),
                   _table(results, f"{title}: speed and memory", SPEED, note)]  # fmt: skip
    return [table for table in tables if table["rows"]]


def _table(results: Results, title: str, columns: Mapping[str, Cost], note: str) -> dict[str, Any]:
    """Models that have none of the quantities, and quantities of no model, are left out."""
    shown = {
        quantity: cost.column
        for quantity, cost in columns.items()
        if any(results.metric(model, quantity) for model in results.profiled())
    }
    rows = [
        {
            "id": model,
            "label": label(model) if "/" not in model or model.count("/") == 1 else _long(model),
            "cells": [_cell(results, model, quantity) for quantity in shown],
        }
        for model in results.profiled()
        if any(results.metric(model, quantity) for quantity in shown)
    ]
    return {
        "title": title,
        "columns": list(shown.values()),
        "rows": rows,
        "note": note,
        "is_own": not title.startswith(FULL_SIZE),
    }


def _repeats(run: Results) -> str:
    timed = [run.metric(model, name) for model in run.profiled() for name in SPEED]
    if any(one["ci_low"] < one["ci_high"] for one in timed if one):
        return "Median of repeated runs, with the fastest and the slowest,"
    return "Timed once"


def _long(model: str) -> str:
    """`sd15/control/elr`: the architecture stands in the table's title."""
    return label(model.partition("/")[2])


def _cell(results: Results, model: str, quantity: str) -> dict[str, str]:
    if (metric := results.metric(model, quantity)) is None:
        return {"text": "—", "small": ""}
    basis = metric["settings"].get("basis", "")
    if quantity.endswith("_s"):
        low, value, high = (1000 * metric[k] for k in ("ci_low", "value", "ci_high"))
        ends = f"{story.number(low)} to {story.number(high)}" if low < high else basis
        return {"text": story.number(value), "small": ends}
    small = basis if basis in ("predicted", "measured") else ""
    return {"text": story.pretty(quantity, metric), "small": small}


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
