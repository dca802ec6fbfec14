"""The report's numbers in the plain forms that `dvc metrics` and `dvc plots` read.

In: a run, training histories. Out: `metrics.json`, the few numbers that decide, which DVC compares
between revisions: two per family, of its main student; `plots/quality.csv`, a row per model;
`plots/training/`, a file per model with its validation loss. Intervals and settings are in the
metrics files, not here.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from distillery.core.artifacts import write_json
from distillery.families import STUDENTS
from distillery.report.evidence import Results
from distillery.report.tables import write_csv

METRICS = "metrics.json"
QUALITY = "plots/quality.csv"
TRAINING = "plots/training"
NUMBERS_PER_FAMILY = 2
CLOSENESS = "prediction_distance"
QUANTITIES = (
    "parameters_total", "macs", "latency_s", "clip_score", "kid", "reader_shape", "edge_f1",
)  # fmt: skip


def write_for_dvc(reports: Path, run: Results, histories: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the files into the folder of the report."""
    write_json(reports / METRICS, deciding(run))
    rows = [
        {"model": variant, **{name: _value(run, variant, name) for name in QUANTITIES}}
        for variant in run.variants()
    ]
    write_csv(reports / QUALITY, rows, ("model", *QUANTITIES))
    for variant, training in histories.items():
        write_csv(reports / losses_path(variant), _curve(training), ("step", "val_loss"))


def deciding(run: Results) -> dict[str, dict[str, float]]:
    """{main student of a family: its numbers that decide}, at most `NUMBERS_PER_FAMILY` each.

    The family's first quality, then how far its prediction is from the teacher's, which moves
    before images do.
    """
    numbers = {}
    for family in STUDENTS.values():
        if student := family.main_student(run.variants()):
            first, *others = family.shown.qualities
            own = run.metrics[student]["metrics"]
            names = [name for name in dict.fromkeys((first, CLOSENESS, *others)) if name in own]
            numbers[student] = {name: own[name]["value"] for name in names[:NUMBERS_PER_FAMILY]}
    return numbers


def losses_path(variant: str) -> str:
    """Where a model's validation losses are, in the folder of the report."""
    return f"{TRAINING}/{variant.replace('/', '_')}.csv"


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
