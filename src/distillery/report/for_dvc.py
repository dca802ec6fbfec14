"""The report's numbers in the plain forms that `dvc metrics` and `dvc plots` read.

In: a run, training histories. Out: `metrics.json`, one number per model and metric, which DVC
compares between revisions; `plots/quality.csv`, a row per model; `plots/training/`, a file per
model with its validation loss. Intervals and settings are in the metrics files, not here.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from distillery.core.artifacts import write_json
from distillery.report.evidence import Results
from distillery.report.tables import write_csv

METRICS = "metrics.json"
QUALITY = "plots/quality.csv"
TRAINING = "plots/training"
QUANTITIES = (
    "parameters_total", "macs", "latency_s", "clip_score", "kid", "reader_shape", "edge_f1",
)  # fmt: skip


def write_for_dvc(reports: Path, run: Results, histories: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the files into the folder of the report."""
    write_json(
        reports / METRICS,
        {
            variant: {
                name: metric["value"] for name, metric in run.metrics[variant]["metrics"].items()
            }
            for variant in run.variants()
        },
    )
    rows = [
        {"model": variant, **{name: _value(run, variant, name) for name in QUANTITIES}}
        for variant in run.variants()
    ]
    write_csv(reports / QUALITY, rows, ("model", *QUANTITIES))
    for variant, training in histories.items():
        path = reports / TRAINING / f"{variant.replace('/', '_')}.csv"
        write_csv(path, _curve(training), ("step", "val_loss"))


def _value(run: Results, variant: str, name: str) -> float | str:
    """What a model has of a metric or cost; an empty cell where it has none."""
    metric = run.metric(variant, name)
    return "" if metric is None else metric["value"]


def _curve(training: Mapping[str, Any]) -> list[dict[str, float]]:
    """Validation loss over steps, the mean over training seeds."""
    losses: dict[int, list[float]] = {}
    for history in training["seeds"].values():
        for entry in history.get("val", ()):
            losses.setdefault(entry["step"], []).append(entry["loss"])
    return [{"step": step, "val_loss": fmean(values)} for step, values in sorted(losses.items())]
