"""Two runs side by side: what changed in params, which metrics moved beyond their intervals.

In: two folders, each with `params.yaml` and `metrics/`, or Git revisions of this repository whose
metrics are in Git or in DVC's cache (DVC experiments are revisions too). Out: a `Comparison`. Where
both runs judged the same images, differences are paired over them. Not here: texts (`compare`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.commands.changes import changed
from distillery.commands.compare.open import opened, path_of, read_params
from distillery.core.errors import DistilleryError
from distillery.families import STUDENTS
from distillery.report.differences import paired, rounded
from distillery.report.evidence import Results, read_run

ALIKE = ("selection", "teacher")  # inputs of an evaluation that make its images comparable


@dataclasses.dataclass(frozen=True)
class Move:
    """One metric of one model in both runs; `moved` where the interval of the difference excludes
    zero. `is_time`: seconds, which differ from run to run whatever is computed; timed once in a
    run, they have no spread to move beyond."""

    model: str
    metric: str
    before: float
    after: float
    difference: float
    ci: tuple[float, float]
    moved: bool
    is_time: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`params`: {dotted key: [before, after]}; models and metrics of one run only by name.

    `changed_models` are those whose own params changed.
    """

    params: dict[str, list[Any]]
    moves: list[Move]
    only_before: list[str]
    only_after: list[str]
    changed_models: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def compare_runs(before: str, after: str, repository: Path = Path()) -> Comparison:
    """Compare two runs, each a folder or a revision of the Git repository `repository`.

    Raises DistilleryError for what is neither, and for a run without params or metrics.
    """
    with opened(before, repository) as a, opened(after, repository) as b:
        return compare_folders(a, b)


def compare_folders(a: Path, b: Path) -> Comparison:
    """Compare two folders with a run's params and metrics."""
    params = changed(read_params(a), read_params(b))
    runs = [_run(folder) for folder in (a, b)]
    metrics = [_metrics(run) for run in runs]
    shared = [key for key in metrics[0] if key in metrics[1]]
    return Comparison(
        params,
        [_move(key, *runs) for key in shared],
        *([" ".join(k) for k in one if k not in other] for one, other in (metrics, metrics[::-1])),
        [model for model in runs[1].variants() if _has_changed(model, params)],
    )


def _has_changed(model: str, params: Mapping[str, Any]) -> bool:
    family, _, variant = model.partition("/")
    known = STUDENTS.get(family)
    start = f"{known.variants_key}.{variant}" if known else None
    return any(key == start or key.startswith(f"{start}.") for key in params)


def _move(key: tuple[str, str], before: Results, after: Results) -> Move:
    model, name = key
    a, b = before.metric(model, name), after.metric(model, name)
    low, high = b["ci_low"] - a["ci_high"], b["ci_high"] - a["ci_low"]
    if _are_alike(model, before, after):
        pair = paired(after.per_image(model, name), before.per_image(model, name))
        low, high = (pair.low, pair.high) if pair else (low, high)
    is_time = name.endswith("_s")
    is_once = is_time and any(one["ci_low"] == one["ci_high"] for one in (a, b))
    return Move(
        model, name, a["value"], b["value"], rounded(b["value"] - a["value"]),
        (rounded(low), rounded(high)), (low > 0 or high < 0) and not is_once, is_time,
    )  # fmt: skip


def _are_alike(model: str, *runs: Results) -> bool:
    """Whether both runs judged the model on the same images of the same data."""
    made = [run.metrics.get(model, {}).get("fingerprints", {}) for run in runs]
    return all(made[0].get(name) == made[1].get(name) for name in ALIKE)


def _run(folder: Path) -> Results:
    run = read_run(folder / path_of(folder, "metrics"), "", ())
    if not run.metrics:
        raise DistilleryError(f"{folder}: no metrics files below metrics/; run the pipeline there")
    return run


def _metrics(run: Results) -> list[tuple[str, str]]:
    """(Model, metric) of all models, and of the profile."""
    own = [(model, name) for model in run.variants() for name in run.metrics[model]["metrics"]]
    costs = (tuple(key.rsplit("/", 1)) for key in run.profile.get("metrics", {}))
    return list(dict.fromkeys([*own, *costs]))
