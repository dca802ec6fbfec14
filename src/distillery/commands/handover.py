"""Let Snakemake and DVC agree about what is up to date.

Each keeps its own record. DVC keeps no times, so after `dvc pull` Snakemake would rerun at random,
and after `dvc repro` it has no record and would miss later edits of params.yaml. `adopt` hands
Snakemake's outputs to DVC, `trust` DVC's to Snakemake; each first asks the other tool for proof.
"""

import subprocess
import sys
from pathlib import Path

from distillery.commands.amounts import counted
from distillery.commands.plan import record_cut, resolve_jobs
from distillery.core.errors import DistilleryError

RECORDS = Path(".snakemake/metadata")  # where Snakemake notes what it made


def adopt() -> None:
    """Record in DVC what Snakemake has made; refuse unless Snakemake has nothing to do."""
    _require_record()
    pending = [job["label"] for job in resolve_jobs() if job["needed"]]
    if pending:
        raise DistilleryError(
            f"snakemake has {counted(len(pending), 'stage')} to run, first {pending[0]}; "
            "run `snakemake --cores 8 all`, then adopt"
        )
    _run("dvc", "commit", "--force")  # it would keep its reason to itself under --quiet


def trust() -> None:
    """Record in Snakemake what DVC has made or pulled; refuse unless `dvc status` is clean."""
    _require_record()
    status = _call("dvc", "status", "--quiet")
    if status.returncode != 0:
        if RECORDS.is_dir() and not any(job["needed"] for job in resolve_jobs()):
            raise DistilleryError(
                "Snakemake made what is here and has nothing to run; run `distillery adopt`, which "
                "records it in DVC (`dvc repro` would compute it again)"
            )
        why = _last_line(status.stderr) or "something is out of date"
        raise DistilleryError(
            f"dvc status is not clean ({why}); run `dvc repro --pull`, then trust"
        )
    # Plain --touch passes over what Snakemake has no record of, which here is everything.
    _run("snakemake", "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--", "all")


def _require_record() -> None:
    if cut := record_cut():
        raise DistilleryError(cut)


def _call(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _run(module: str, *arguments: str) -> None:
    done = _call(module, *arguments)
    if done.returncode != 0:
        raise DistilleryError(f"{module} {arguments[0]} failed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    """The last error in it, or the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return next(reversed(errors or lines), "")
