"""What the next run would do: which stages, why, how long they took last time, what they write.

In: the repository in the working directory. Out: one row per stage to run. It asks Snakemake and
reads `work/runs/`; it runs nothing.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.core.run import read_run

JOBS_SCRIPT = Path("workflow/jobs.py")


@dataclass(frozen=True)
class Row:
    """One stage to run; seconds and bytes are those of its last run, None if it never ran."""

    stage: str
    reason: str
    seconds: float | None
    bytes: int | None


def resolve_jobs(targets: Sequence[str] = ("all",)) -> list[dict[str, Any]]:
    """Snakemake's jobs for `targets`; see workflow/jobs.py for the keys."""
    if not JOBS_SCRIPT.is_file():
        raise DistilleryError(f"{JOBS_SCRIPT}: not found; run this in the repository's root")
    done = subprocess.run(
        [sys.executable, str(JOBS_SCRIPT), *targets], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise DistilleryError("\n".join(lines) or "snakemake could not resolve the workflow")
    return [json.loads(line) for line in done.stdout.splitlines()]


def plan(work_root: Path, targets: Sequence[str] = ("all",)) -> list[Row]:
    """The stages that are out of date, in the order in which they would run."""
    return [
        _row(job["label"], job["reason"], read_run(work_root, job["label"]))
        for job in resolve_jobs(targets)
        if job["needed"]
    ]


def script(targets: Sequence[str] = ("all",)) -> str:
    """The same stages as a shell script that needs neither Snakemake nor DVC."""
    commands = [job["command"] for job in resolve_jobs(targets) if job["needed"]]
    return "\n".join(["set -e", *commands])


def lock_left(root: Path = Path()) -> str:
    """What to do about the lock of a Snakemake that was killed in `root`; empty without one."""
    locks = root / ".snakemake" / "locks"
    if not (locks.is_dir() and any(locks.iterdir())) or _is_running(root):
        return ""
    return (
        "A Snakemake that ran here was killed and left its lock: run `snakemake --unlock` first; "
        "what was finished is kept"
    )


def _is_running(root: Path) -> bool:
    """Whether a Snakemake works in the folder; only processes of this machine are seen."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if b"snakemake" in command and (process / "cwd").resolve() == root.resolve():
                return True
    return False


def _row(label: str, reason: str, last: dict[str, Any] | None) -> Row:
    return Row(label, reason, last and last["seconds"], last and last["bytes"])


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows and totals; a total covers the stages that ran before, `num_unknown` counts the rest."""
    known = [row for row in rows if row.seconds is not None]
    return {
        "stages": [asdict(row) for row in rows],
        "total_s": round(sum(row.seconds for row in known), 3),
        "total_bytes": sum(row.bytes for row in known),
        "num_unknown": len(rows) - len(known),
    }


def as_text(rows: Sequence[Row]) -> str:
    """A table for the terminal, with a closing line of totals."""
    if not rows:
        return "Nothing to run: everything is up to date."
    width = max(len(row.stage) for row in rows)
    lines = [f"{'stage':<{width}}  {'last time':>9}  {'writes':>9}  why"]
    lines += [
        f"{row.stage:<{width}}  {_seconds(row.seconds):>9}  {_bytes(row.bytes):>9}  {row.reason}"
        for row in rows
    ]
    totals = as_json(rows)
    unknown = f"; {totals['num_unknown']} never ran here" if totals["num_unknown"] else ""
    lines.append(
        f"{len(rows)} stages, {_seconds(totals['total_s'])} of work in the last run, "
        f"{_bytes(totals['total_bytes'])} to write{unknown}"
    )
    return "\n".join(lines)


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
