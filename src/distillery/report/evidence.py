"""What the report knows: this run's metrics, its profile, and the committed results.

In: the folders `metrics/` and `docs/results/`. Out: `Results`, one per run. Nothing is made up
here: a file that is not there is a metric that is not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.families import OFFSET
from distillery.families.names import in_order

THIS_RUN = "this run"
COMMITTED = "committed three-seed run"
MIN_COMMITTED_SEEDS = 3
# Presets that compare students for single claims, which name them by `preset`. No other claim is
# judged on them, and no table shows them.
OF_LATENCY = "scenes-latency"
COMPARISONS = (OF_LATENCY,)
PROFILE = "profile"
PER_IMAGE = "per_image"
_REMEDY = "write it with python -m distillery.commands.collect"
_KEYS = ("date", "machine", "preset", "seeds", "metrics", "profile")

Metric = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Metrics of one run; `setting` names it in tables (`scenes`, `scenes-full`)."""

    scope: str
    setting: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    profile: Mapping[str, Any] = field(default_factory=dict)
    date: str | None = None
    machine: str | None = None

    def metric(self, variant: str, name: str) -> Metric | None:
        """A metric of `unet/elr`, or a quantity of the profile."""
        metric = self.metrics.get(variant, {}).get("metrics", {}).get(name)
        costs = self.profile.get("metrics", {})
        return metric or next(
            (costs[key] for model in profile_names(variant) if (key := f"{model}/{name}") in costs),
            None,
        )

    def per_image(self, variant: str, name: str) -> tuple[list[str], dict[str, list]] | None:
        """Keys, and {seed: values}, None for an image without one; None where not kept."""
        kept = self.metrics.get(variant, {}).get(PER_IMAGE, {})
        values = kept.get("values", {}).get(name)
        return (kept["keys"], values) if values else None

    def variants(self, family: str | None = None) -> list[str]:
        """Evaluated variants, of one family or all, in the tables' order."""
        start = f"{family}/" if family else ""
        return [name for name in in_order(list(self.metrics)) if name.startswith(start)]

    def profiled(self) -> list[str]:
        """Models of the profile, in the tables' order."""
        names = (name.rpartition("/")[0] for name in self.profile.get("metrics", {}))
        return in_order(list(dict.fromkeys(names)))


def profile_names(variant: str) -> list[str]:
    """How the profile may call a variant: the teacher's are one model without a ControlNet."""
    is_plain = variant in ("teacher/guided", "teacher/unguided", "teacher/guided_offset")
    return [variant, "teacher"] if is_plain else [variant.removesuffix(OFFSET)]


def read_run(metrics: Path, setting: str, seeds: tuple[int, ...]) -> Results:
    """This run's metrics files, `<family>/<variant>.json` and `profile.json` where they are."""
    by_variant = {
        path.relative_to(metrics).with_suffix("").as_posix(): read_json(path)
        for path in sorted(metrics.glob("*/*.json"))
    }
    profile = metrics / f"{PROFILE}.json"
    return Results(
        THIS_RUN, setting, seeds, by_variant, read_json(profile) if profile.is_file() else {}
    )


def read_committed(folder: Path) -> list[Results]:
    """All result files, oldest first; a file without the contract's keys is an error."""
    committed = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        values = read_json(path, remedy=_REMEDY)
        if lost := [key for key in _KEYS if key not in values]:
            raise DistilleryError(f"{path}: no {lost[0]!r}; {_REMEDY}")
        committed.append(
            Results(
                COMMITTED,
                values["preset"],
                tuple(values["seeds"]),
                _with_per_image(values["metrics"], per_image_file(path)),
                values["profile"],
                values["date"],
                values["machine"],
            )
        )
    return sorted(committed, key=lambda results: results.date)


def per_image_file(results_file: Path) -> Path:
    """Where the per-image values of a results file are kept."""
    return results_file.parent / PER_IMAGE / results_file.name


def _with_per_image(metrics: dict[str, Any], path: Path) -> dict[str, Any]:
    if not path.is_file():
        return metrics
    kept = read_json(path, remedy=_REMEDY)
    return {
        variant: {**values, **({PER_IMAGE: kept[variant]} if variant in kept else {})}
        for variant, values in metrics.items()
    }


def judged_on(committed: Sequence[Results], preset: str | None = None) -> Results | None:
    """The newest committed results with enough training seeds to judge statistical claims on.

    Of one preset, where it is named; else of any that is not among the `COMPARISONS`.
    """
    enough = [
        results
        for results in committed
        if len(results.seeds) >= MIN_COMMITTED_SEEDS
        and (results.setting == preset if preset else results.setting not in COMPARISONS)
    ]
    return enough[-1] if enough else None
