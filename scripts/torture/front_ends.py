"""Snakemake and DVC that are killed, or that run twice at once.

In: a finished small project. Out: results. Stages of a killed front end run on, as they do for
users. Whether the same command is given again at once or after them, the output must be whole.
"""

import random
import signal
import time

from torture.processes import Process, Stop
from torture.result import Result
from torture.small_project import Job, SmallProject

_COMMANDS = {
    "Snakemake": ("snakemake", "--cores", "1", "data/curated/0"),
    "DVC": ("dvc", "repro", "--force", "--single-item", "curate@0"),
}
_LABEL = "curate/0"
_LOCKED = "Directory cannot be locked"
_CUT = {"'./dvc.lock' ": "dvc.lock", "Unable to read RWLock-file": ".dvc/tmp/rwlock"}


def kill_front_ends(project: SmallProject, rng: random.Random, seconds: float) -> Result:
    """kill -9 of a front end, at random instants of its own work; then the same command again."""
    result = Result("kill -9 of Snakemake or DVC", note="the same command again: equal bytes")
    job = next(job for job in project.jobs if job.label == _LABEL)
    project.order_times()
    taken = {name: _run_whole(project, job, command) for name, command in _COMMANDS.items()}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, command in _COMMANDS.items():
            result.add(_kill(project, job, command, _draw(taken[name], rng), rng), name)
    return result


def _run_whole(project: SmallProject, job: Job, command: tuple[str, ...]) -> Process:
    project.start_anew(job)
    process = project.start_front_end(*command)
    if process.wait() or not job.is_whole():
        raise SystemExit(f"{command}: {process.text[-2000:]}")
    return process


def _draw(whole: Process, rng: random.Random) -> Stop:
    if rng.random() < 0.5:
        return Stop(signal.SIGKILL, cpu_s=rng.uniform(0, whole.cpu_s))
    return Stop(signal.SIGKILL, change=rng.randrange(whole.num_changes))


def _kill(
    project: SmallProject, job: Job, command: tuple[str, ...], stop: Stop, rng: random.Random
) -> str | None:
    project.start_anew(job)
    killed = project.start_front_end(*command, stop=stop)
    killed.wait()
    if rng.random() < 0.5:
        project.wait_for_orphans()
    place, again = killed.last_path, project.start_front_end(*command)
    code = again.wait()
    project.wait_for_orphans()
    if code and _clear(project, command, again.text):
        again = project.start_front_end(*command)
        code = again.wait()
    if code or not job.is_whole():
        job.remove()
        project.start(job).wait()  # for what is tried next
        return f"{command[0]}, killed at {place}: exit code {code}: {again.text[-600:]}"
    return f"left beside: {left}" if (left := project.left_over()) else None


def _clear(project: SmallProject, command: tuple[str, ...], text: str) -> bool:
    """Do what docs/how-it-works.md says of a lock, or of a record that DVC was writing."""
    cut = [name for said, name in _CUT.items() if said in text]
    if _LOCKED in text:
        project.start_front_end(*command, "--unlock").wait()
    for name in cut:
        (project.root / name).unlink()
    return _LOCKED in text or bool(cut)


def run_twice(project: SmallProject) -> Result:
    """Two Snakemakes at once on one missing output."""
    result = Result("two snakemake runs at once", note="one works, the other waits or says why not")
    project.order_times()
    job = project.jobs[-1]
    targets = [str(path.relative_to(project.root)) for path in job.outputs]
    job.remove()
    outputs = [run.communicate()[0] for run in [project.snakemake(*targets) for _ in range(2)]]
    finished = project.snakemake(*targets)
    finished.communicate()
    if finished.returncode:  # the lock of the one that was refused
        project.snakemake("--unlock", *targets).communicate()
    refused = [text for text in outputs if _LOCKED in text]
    result.add(None if job.is_whole() else f"{job.label}: other bytes: {outputs}")
    result.add(None if len(refused) <= 1 else "both runs were refused")
    return result
