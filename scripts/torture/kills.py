"""Stages that are killed, interrupted, or that find no room.

In: a finished small project, twice. Out: results. Every stage is stopped several times, begun from
nothing or going on from where it was, and then run to its end. After every try an output is absent
or whole; in the end it has the bytes that it had at first, and nothing is left beside it.
"""

import random
import signal
import time
from collections.abc import Sequence

from torture.processes import Process, Stop, in_forks
from torture.result import Result, joined
from torture.small_project import Job, SmallProject, limit_files

_TRIES_BEFORE_END = 8
_SHARE_ANEW = 0.7
_SIGNALS = (*[signal.SIGKILL] * 5, signal.SIGINT, signal.SIGTERM)
_ROWS = {
    signal.SIGKILL: "kill -9 of a stage",
    signal.SIGINT: "Ctrl-C in a stage",
    signal.SIGTERM: "SIGTERM to a stage",
}


def stop_stages(projects: Sequence[SmallProject], seed: int, seconds: float) -> list[Result]:
    """A row a signal; each copy of the project has a process of its own."""
    parts = in_forks(
        *[lambda p=p, n=n: _stop_stages(p, f"{seed}/{n}", seconds) for n, p in enumerate(projects)]
    )
    return [joined(rows) for rows in zip(*parts, strict=True)]


def _stop_stages(project: SmallProject, seed: str, seconds: float) -> list[Result]:
    rng, end = random.Random(seed), time.monotonic() + seconds
    rows = {number: Result(name) for number, name in _ROWS.items()}
    order: list[Job] = []
    while time.monotonic() < end:
        order = order or rng.sample(project.jobs, len(project.jobs))
        _stop_job(project, order.pop(), rng, rows)
    rows[signal.SIGKILL].note = "then finished with equal bytes"
    rows[signal.SIGINT].note = "one line, exit code 130"
    rows[signal.SIGTERM].note = "one line, exit code 143"
    return list(rows.values())


def _stop_job(project: SmallProject, job: Job, rng: random.Random, rows: dict[int, Result]) -> None:
    for _ in range(_TRIES_BEFORE_END):
        project.start_anew(job) if rng.random() < _SHARE_ANEW else job.remove()
        number = rng.choice(_SIGNALS)
        process = project.start(job, _draw(job, number, rng))
        if not (code := process.wait()):  # it had less left to do, and ended before
            continue
        problem = _problem(project, job, process, number, code)
        rows[number].add(problem and f"{job.label}: {problem}", _place(process))
    if problem := _finish(project, job):
        rows[signal.SIGKILL].lost.append(f"{job.label}: {problem} after stops")


def _draw(job: Job, number: int, rng: random.Random) -> Stop:
    """An instant of the stage's own work: by the clock of the processor, or by what it writes."""
    if rng.random() < 0.5:
        return Stop(number, cpu_s=rng.uniform(0, job.cpu_s))
    return Stop(number, change=rng.randrange(job.num_changes))


def _place(process: Process) -> str:
    """What it was about, from what it changed last."""
    if "/step-" in process.last_path:
        return "checkpoints"
    return "outputs" if ".tmp-" in process.last_path else "elsewhere"


def _problem(
    project: SmallProject, job: Job, process: Process, number: int, code: int
) -> str | None:
    if not job.is_absent_or_whole():
        return f"half an output after {signal.Signals(number).name}"
    if number == signal.SIGKILL:
        return None if code == -number else f"exit code {code}: {process.last_line}"
    if code != 128 + number or "interrupted by" not in process.last_line:
        return f"exit code {code}: {process.text[-600:]}"
    if left := [name for name in project.left_over() if f"-{process.pid}-" in name]:
        return f"left beside: {left}"
    return "a traceback is shown" if "Traceback" in process.text else None


def _finish(project: SmallProject, job: Job) -> str | None:
    """Run to the end what was stopped; nothing may be left beside."""
    job.remove()
    process = project.start(job)
    if code := process.wait():
        return f"exit code {code}: {process.last_line}"
    if not job.is_whole():
        return "other bytes"
    return f"left beside: {left}" if (left := project.left_over()) else None


def fill_disk(project: SmallProject, rng: random.Random, seconds: float) -> Result:
    """Files that can't grow beyond a random size, in every stage: one line, exit code 2."""
    result = Result(
        "full disk", note="a limit on the size of files; one line with the bytes needed"
    )
    end = time.monotonic() + seconds
    for job in rng.sample(project.jobs, len(project.jobs)):
        if time.monotonic() >= end:
            break
        project.start_anew(job)
        process = project.start(job, prepare=limit_files(rng.randrange(1, 4 * 2**10)))
        code, line = process.wait(), process.last_line
        if not job.is_absent_or_whole():
            result.add(f"{job.label}: half an output")
        elif code and not (code == 2 and "bytes are free; free space and run again" in line):
            result.add(f"{job.label}: exit code {code}: {line}")
        else:
            result.add(None)
        if problem := _finish(project, job):
            result.lost.append(f"{job.label}: {problem} on a full disk")
    return result
