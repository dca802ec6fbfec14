"""Two runs side by side: what changed in params, which metrics moved beyond their intervals.

In: two folders, each with `params.yaml` and `metrics/`, or Git revisions of this repository whose
metrics are in Git or in DVC's cache (DVC experiments are revisions too). Out: a `Comparison`, as
JSON or text. Nothing is run, and nothing in the workspace changes.
"""

import dataclasses
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from distillery.core.errors import DistilleryError
from distillery.report import story
from distillery.report.differences import rounded
from distillery.report.evidence import read_run

PARAMS = "params.yaml"
MISSING = "(missing)"


@dataclasses.dataclass(frozen=True)
class Move:
    """One metric of one model in both runs; `moved` where its intervals do not overlap."""

    model: str
    metric: str
    before: float
    after: float
    difference: float
    ci: tuple[float, float]
    moved: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`params`: {dotted key: [before, after]}; models and metrics of one run only by name."""

    params: dict[str, list[Any]]
    moves: list[Move]
    only_before: list[str]
    only_after: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """What changed and what moved, for a terminal; metrics within their intervals counted."""
        lines = [f"params: {len(self.params)} changed"]
        lines += [f"  {key}: {_shown(a)} -> {_shown(b)}" for key, (a, b) in self.params.items()]
        moved = [move for move in self.moves if move.moved]
        lines.append(f"metrics: {len(moved)} of {len(self.moves)} moved beyond their intervals")
        width = max((len(f"{m.model} {m.metric}") for m in moved), default=0)
        for move in moved:
            name = f"{move.model} {move.metric}"
            change = f"{_number(move.before)} -> {_number(move.after)}"
            low, high = map(_number, move.ci)
            lines.append(f"  {name:<{width}}  {change}  ({low} to {high})")
        for title, names in (("first", self.only_before), ("second", self.only_after)):
            if names:
                lines.append(f"only in the {title}: {_by_model(names)}")
        return "\n".join(lines)


def _by_model(names: Sequence[str]) -> str:
    """`unet/elr (3 metrics), ...` of names `<model> <metric>`; a single metric is named."""
    counts = Counter(name.rpartition(" ")[0] for name in names)
    alone = {name.rpartition(" ")[0]: name for name in names}
    return ", ".join(
        f"{model} ({count} metrics)" if count > 1 else alone[model]
        for model, count in counts.items()
    )


def compare_runs(before: str, after: str, repository: Path = Path()) -> Comparison:
    """Compare two runs, each a folder or a revision of the Git repository `repository`.

    Raises DistilleryError for what is neither, and for a run without params or metrics.
    """
    with _opened(before, repository) as a, _opened(after, repository) as b:
        return _compare(a, b)


def _compare(a: Path, b: Path) -> Comparison:
    settings = [_flat(_read_params(folder)) for folder in (a, b)]
    metrics = [_metrics(folder) for folder in (a, b)]
    shared = [key for key in metrics[0] if key in metrics[1]]
    return Comparison(
        {
            key: [side.get(key, MISSING) for side in settings]
            for key in sorted({*settings[0], *settings[1]})
            if settings[0].get(key, MISSING) != settings[1].get(key, MISSING)
        },
        [_move(key, metrics[0][key], metrics[1][key]) for key in shared],
        *([" ".join(k) for k in one if k not in other] for one, other in (metrics, metrics[::-1])),
    )


def _move(key: tuple[str, str], a: Mapping[str, Any], b: Mapping[str, Any]) -> Move:
    low, high = b["ci_low"] - a["ci_high"], b["ci_high"] - a["ci_low"]
    return Move(
        *key, a["value"], b["value"], rounded(b["value"] - a["value"]),
        (rounded(low), rounded(high)), low > 0 or high < 0,
    )  # fmt: skip


def _metrics(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """{(model, metric): metric} of all models, and of the profile."""
    run = read_run(folder / _paths(folder).get("metrics", "metrics"), "", ())
    if not run.metrics:
        raise DistilleryError(f"{folder}: no metrics files below metrics/; run the pipeline there")
    metrics = {
        (model, name): metric
        for model in run.variants()
        for name, metric in run.metrics[model]["metrics"].items()
    }
    costs = run.profile.get("metrics", {})
    return metrics | {tuple(key.rsplit("/", 1)): metric for key, metric in costs.items()}


def _paths(folder: Path) -> dict[str, str]:
    return _read_params(folder).get("paths", {})


def _read_params(folder: Path) -> dict[str, Any]:
    path = folder / PARAMS
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DistilleryError(f"{path}: not found; give a folder with a run's params") from None
    except yaml.YAMLError as error:
        raise DistilleryError(f"{path}: not valid YAML ({error.__class__.__name__})") from None
    return values if isinstance(values, dict) else {}


def _flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{start}{key}.")
        else:
            flat[f"{start}{key}"] = value
    return flat


@contextmanager
def _opened(name: str, repository: Path) -> Iterator[Path]:
    """A run's folder as it is, or a revision's params and metrics in a temporary one."""
    if Path(name).is_dir():
        yield Path(name)
        return
    if _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is None:
        raise DistilleryError(f"{name}: neither a folder nor a revision of this repository")
    with tempfile.TemporaryDirectory() as folder:
        _check_out(name, repository, Path(folder))
        yield Path(folder)


def _check_out(revision: str, repository: Path, folder: Path) -> None:
    text = _git(repository, "show", f"{revision}:{PARAMS}")
    if text is None:
        raise DistilleryError(f"{revision}: has no {PARAMS}")
    (folder / PARAMS).write_bytes(text)
    metrics = _paths(folder).get("metrics", "metrics")
    names = _git(repository, "ls-tree", "-r", "--name-only", revision, "--", metrics) or b""
    tracked = [name for name in names.decode().splitlines() if name.endswith(".json")]
    for name in tracked:
        _write(folder / name, _git(repository, "show", f"{revision}:{name}") or b"")
    lock = _git(repository, "show", f"{revision}:dvc.lock")
    outputs = _locked(lock, metrics) if lock else []
    for output in outputs:
        _fetch(output, revision, repository, folder)
    if not tracked and not outputs:
        raise DistilleryError(
            f"{revision}: no metrics in Git or in its dvc.lock; check it out into a folder, run "
            "the pipeline there and compare the folders"
        )


def _locked(lock: bytes, metrics: str) -> list[str]:
    """Paths of the metrics that a dvc.lock knows."""
    stages = (yaml.safe_load(lock) or {}).get("stages", {})
    paths = [out["path"] for stage in stages.values() for out in stage.get("outs", [])]
    return sorted(path for path in paths if path.startswith(f"{metrics}/"))


def _fetch(output: str, revision: str, repository: Path, folder: Path) -> None:
    """One output of a revision, from DVC's cache or its remote."""
    target = folder / output
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["dvc", "get", "--quiet", "--force", "--rev", revision, "-o", str(target),
         str(repository.resolve()), output],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["dvc get failed"])[-1]
        raise DistilleryError(
            f"{revision}: {output} is not in DVC's cache or remote ({reason}); run `dvc fetch "
            f"--run-cache` or compare two folders"
        )


def _git(repository: Path, *arguments: str) -> bytes | None:
    """Standard output of a Git command, None where it failed."""
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _shown(value: Any) -> str:
    return value if value == MISSING else json.dumps(value)


def _number(value: float) -> str:
    return story.number(value).replace("−", "-")
