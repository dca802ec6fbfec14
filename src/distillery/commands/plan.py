"""What the next run would do: which stages, why, how long it will take here, what it writes.

In: the repository in the working directory. Out: one row per stage to run. It asks Snakemake and
reads `work/runs/`; it runs nothing. What a stage read of the params stands in its artefact's
manifest, or in the record of its last run here.
"""

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distillery.commands import schedule
from distillery.commands.amounts import counted
from distillery.commands.changes import Changes, as_lines, changed
from distillery.core.artifacts import MANIFEST, read_manifest
from distillery.core.errors import DistilleryError
from distillery.core.run import read_run
from distillery.params import Params
from distillery.params.leftovers import leftovers, shown

JOBS_SCRIPT = Path("workflow/jobs.py")
# What Snakemake adds where no rule makes a target, for authors of rules.
_ASIDE = " (if you use input functions make sure that they don't raise unexpected exceptions)."
PARAMS_CHANGED = "params changed"  # what workflow/jobs.py says
NOT_MADE = "not made yet"
MADE_ALREADY = "made so already, not by Snakemake: `distillery trust`"
MAX_SHOWN = 4
_RECORDS = {"dvc.lock": ("schema:", "\n"), ".dvc/tmp/rwlock": ("{", "}")}  # begin and end


@dataclass(frozen=True)
class Row:
    """One stage to run; seconds and bytes are those of its last run, None if it never ran.

    `changes`: {key: [before, after]} of the params that it reads. `settings_differ`: the last run
    had other amounts, so that its time is not the next one's.
    """

    stage: str
    reason: str
    seconds: float | None
    bytes: int | None
    changes: Changes
    settings_differ: bool = False


@dataclass(frozen=True)
class Plan:
    """The rows, in the order in which they would run, and how long all that ran before with these
    settings will take on this machine."""

    rows: list[Row]
    wall_s: float
    cores: int


def resolve_jobs(targets: Sequence[str] = ("all",)) -> list[dict[str, Any]]:
    """Snakemake's jobs for `targets`; see workflow/jobs.py for the keys."""
    if not JOBS_SCRIPT.is_file():
        raise DistilleryError(f"{JOBS_SCRIPT}: not found; run this in the repository's root")
    done = subprocess.run(
        [sys.executable, str(JOBS_SCRIPT), *targets], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.replace(_ASIDE, "; give a rule, or a path as a stage writes it")
        lines = [line for line in said.splitlines() if line.strip()]
        raise DistilleryError("\n".join(lines) or "snakemake could not resolve the workflow")
    return [json.loads(line) for line in done.stdout.splitlines()]


def plan(work_root: Path, targets: Sequence[str] = ("all",)) -> Plan:
    """The stages that are out of date."""
    jobs = [job for job in resolve_jobs(targets) if job["needed"]]
    last = [read_run(work_root, job["label"]) for job in jobs]
    pairs = list(zip(jobs, last, strict=True))
    changes = {job["label"]: _changes((r or {}).get("params"), job) for job, r in pairs}
    others = schedule.settings_differ(changes)
    rows = [_row(job, record, job["label"] in others) for job, record in pairs]
    timed = [{**job, "seconds": 0 if job["label"] in others else _whole_s(r)} for job, r in pairs]
    cores = schedule.num_cores()
    return Plan(rows, schedule.wall_s(timed, cores, schedule.num_heavy()), cores)


def _whole_s(record: dict[str, Any] | None) -> float:
    """What a stage took with the start of its process; 0 if it never ran."""
    return record["seconds"] + record.get("startup_s", 0.0) if record else 0.0


def script(targets: Sequence[str] = ("all",)) -> str:
    """The same stages as a shell script that needs neither Snakemake nor DVC."""
    commands = [job["command"] for job in resolve_jobs(targets) if job["needed"]]
    return "\n".join(["set -e", *commands])


def lock_left() -> str:
    """What to do about the lock of a Snakemake that was killed here; empty without one."""
    locks = Path(".snakemake/locks")
    if not (locks.is_dir() and any(locks.iterdir())) or _is_running():
        return ""
    return (
        "A Snakemake that ran here was killed and left its lock: run `snakemake --unlock` first; "
        "what was finished is kept"
    )


def left_over(params: Params) -> str:
    """What lies in the run's folders and is none of it any more; empty where nothing does."""
    if not (left := leftovers(params)):
        return ""
    number = f"{len(left)} results" if len(left) > 1 else "1 result"
    return (
        f"{number} of names that the params do not have: no part of the run; delete with "
        f"rm -r {shlex.join(map(shown, left))}"
    )


def record_cut() -> str:
    """What to do about a record that a killed DVC has not written out; empty where all are whole.

    DVC writes them in place.
    """
    for name, (start, end) in _RECORDS.items():
        file = Path(name)
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if not (text.startswith(start) and text.endswith(end)):
            return (
                f"{name} is cut short, as a DVC that is killed while it writes it leaves it: "
                "delete it, and run the same command again; finished stages come from DVC's cache"
            )
    return ""


def _is_running() -> bool:
    """Whether a Snakemake works here; only processes of this machine are seen."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if b"snakemake" in command and (process / "cwd").resolve() == Path.cwd():
                return True
    return False


def _row(job: dict[str, Any], last: dict[str, Any] | None, differ: bool) -> Row:
    known = _params_of(job["output"]) or (last or {}).get("params")
    changes, reason = _changes(known, job), job["reason"]
    if reason == PARAMS_CHANGED and not changes and (changes := _changes(job["before"], job)):
        reason = MADE_ALREADY if known else reason
    seconds, size = (last["seconds"], last["bytes"]) if last else (None, None)
    return Row(job["label"], reason, seconds, size, changes, differ and last is not None)


def _changes(known: dict[str, Any] | None, job: dict[str, Any]) -> Changes:
    return changed(known, job["values"]) if known else {}


def _params_of(outputs: Sequence[str]) -> dict[str, Any] | None:
    """What the maker of the first output with a manifest read of the params."""
    for output in outputs:
        if (Path(output) / MANIFEST).is_file():
            return read_manifest(Path(output))["recipe"].get("params")
    return None


def as_json(plan: Plan) -> dict[str, Any]:
    """Rows and totals; a total covers the stages that ran before with these settings.

    `num_unknown` counts those that never ran, `num_other` those that ran with others.
    """
    ran = [row for row in plan.rows if row.seconds is not None]
    known = [row for row in ran if not row.settings_differ]
    return {
        "stages": [asdict(row) for row in plan.rows],
        "total_s": round(sum(row.seconds for row in known), 3),
        "wall_s": round(plan.wall_s, 3),
        "cores": plan.cores,
        "total_bytes": sum(row.bytes for row in known),
        "num_unknown": len(plan.rows) - len(ran),
        "num_other": len(ran) - len(known),
    }


def as_text(plan: Plan) -> str:
    """A table for the terminal, with a closing line of totals."""
    if not plan.rows:
        return "Nothing to run: everything is up to date."
    width = max(len(row.stage) for row in plan.rows)
    lines = [f"{'stage':<{width}}  {'last time':>9}  {'writes':>9}  why"]
    for row in plan.rows:
        time = _seconds(row.seconds) + "*" * row.settings_differ
        lines.append(f"{row.stage:<{width}}  {time:>9}  {_bytes(row.bytes):>9}  {_why(row)}")
    return "\n".join([*lines, _totals(as_json(plan))])


def _why(row: Row) -> str:
    """The keys that changed, and Snakemake's reason where that is another."""
    changes = as_lines(row.changes)
    if row.reason == NOT_MADE or not changes:
        return row.reason
    more = [f"and {len(changes) - MAX_SHOWN} more"] if len(changes) > MAX_SHOWN else []
    others = [row.reason] if row.reason != PARAMS_CHANGED else []
    return "; ".join([*changes[:MAX_SHOWN], *more, *others])


def _totals(totals: dict[str, Any]) -> str:
    unknown, other = totals["num_unknown"], totals["num_other"]
    stages = counted(len(totals["stages"]), "stage")
    if unknown + other == len(totals["stages"]):
        how = "with these settings" if other else "before"
        return f"{stages}; none ran here {how}, so how long it will take is not known"
    parts = [
        stages,
        f"{'at least' if other else 'about'} {_seconds(totals['wall_s'])} on "
        f"{counted(totals['cores'], 'core')} ({_seconds(totals['total_s'])} of work in the last "
        "run)",
        f"{_bytes(totals['total_bytes'])} to write",
    ]
    said = {f"{unknown} never ran here": unknown, f"{other} (*) ran with other settings": other}
    apart = " and ".join(text for text, number in said.items() if number)
    return ", ".join(parts) + (f"; {apart}, how long they take is not known" if apart else "")


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def _bytes(value: float | None) -> str:
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
