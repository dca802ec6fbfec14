"""What the report knows: this run's metrics, its profile, and the committed results.

In: the folders `metrics/` and `docs/results/`. Out: `Results`, one per run. Nothing is made up
here: a file that is not there is a metric that is not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.artifacts import read_json
from distillery.errors import DistilleryError

THIS_RUN = "this run"
COMMITTED = "committed three-seed run"
MIN_COMMITTED_SEEDS = 3
PROFILE = "profile"
_KEYS = ("date", "machine", "preset", "seeds", "metrics", "profile")

Metric = dict[str, Any]

LABELS = {
    "teacher/guided": "Teacher",
    "teacher/unguided": "Teacher, no guidance",
    "teacher/guided_offset": "Teacher, other noise",
    "unet/elr": "ELR Stage I",
    "unet/svd_only": "SVD only, untrained",
    "unet/svd_no_kd": "SVD, no distillation",
    "unet/random_kd": "Random start, distilled",
    "unet/decomposed_no_kd": "Low-rank from scratch",
    "unet/standard_no_kd": "Dense from scratch",
    "unet/elr_balanced": "ELR, balanced factors",
    "unet/elr_data_aware": "ELR, data-aware SVD",
    "teacher": "Teacher",
    "sd21/dense": "Stable Diffusion 2.1",
    "sd21/low_rank": "SD 2.1, low-rank U-Net",
}


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
        """A metric of `unet/elr`, or a quantity of the profile (`teacher` is `teacher/guided`)."""
        found = self.metrics.get(variant, {}).get("metrics", {}).get(name)
        return found or self.profile.get("metrics", {}).get(f"{profile_name(variant)}/{name}")

    def variants(self) -> list[str]:
        """Evaluated variants: teacher first, then students in the tables' order, then others."""
        order = list(LABELS)
        known = {name: order.index(name) for name in self.metrics if name in order}
        return sorted(self.metrics, key=lambda name: (known.get(name, len(order)), name))


def profile_name(variant: str) -> str:
    """How the profile calls a variant: all of the teacher's are one model."""
    return "teacher" if variant.startswith("teacher/") else variant


def label(variant: str) -> str:
    """A person's name for a variant."""
    return LABELS.get(variant, variant.partition("/")[2].replace("_", " "))


def read_run(metrics: Path, setting: str, seeds: tuple[int, ...]) -> Results:
    """This run's metrics files, `<family>/<variant>.json` and `profile.json` where they are."""
    found = {
        path.relative_to(metrics).with_suffix("").as_posix(): read_json(path)
        for path in sorted(metrics.glob("*/*.json"))
    }
    profile = metrics / f"{PROFILE}.json"
    return Results(THIS_RUN, setting, seeds, found, read_json(profile) if profile.is_file() else {})


def read_committed(folder: Path) -> list[Results]:
    """All result files, oldest first; a file without the contract's keys is an error."""
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        values = read_json(path, remedy="write it with python -m distillery.report.collect")
        if lost := [key for key in _KEYS if key not in values]:
            raise DistilleryError(
                f"{path}: no {lost[0]!r}; write it with python -m distillery.report.collect"
            )
        found.append(
            Results(
                COMMITTED,
                values["preset"],
                tuple(values["seeds"]),
                values["metrics"],
                values["profile"],
                values["date"],
                values["machine"],
            )
        )
    return sorted(found, key=lambda results: results.date)


def judged_on(committed: list[Results]) -> Results | None:
    """The newest committed results with enough training seeds to judge statistical claims on."""
    enough = [results for results in committed if len(results.seeds) >= MIN_COMMITTED_SEEDS]
    return enough[-1] if enough else None
