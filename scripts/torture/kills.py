"""Stages that are killed, that find no room, that run twice at once.

In: a finished small project. Out: results. After every try an output is absent or whole, and a
stage that is run to its end gives the bytes that it gave at first.
"""

import os
import random
import signal
import time

from torture.result import Result
from torture.small_project import Job, SmallProject, limit_files

_KILLS_BEFORE_END = 3


def kill_stages(project: SmallProject, rng: random.Random, seconds: float) -> Result:
    """kill -9 at random instants, stage after stage; every third time it is run to its end."""
    result = Result("kill -9 at a random instant")
    end, stages = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        for job in rng.sample(project.jobs, len(project.jobs)):
            if time.monotonic() >= end:
                break
            for _ in range(_KILLS_BEFORE_END):
                result.add(_kill(project, job, rng))
            stages.add(job.label.split("/")[0])
            if problem := _finish(project, job):
                result.lost.append(problem)
    result.note = f"over {len(stages)} stages, each then finished with equal bytes"
    return result


def _kill(project: SmallProject, job: Job, rng: random.Random) -> str | None:
    job.remove()
    child = project.start(job.command)
    time.sleep(rng.uniform(0, job.seconds))
    os.kill(child, signal.SIGKILL)
    project.wait(child)
    return None if job.is_absent_or_whole() else f"{job.label}: half an output after a kill"


def _finish(project: SmallProject, job: Job) -> str | None:
    """Run to the end what was killed; nothing may be left beside."""
    job.remove()
    if code := project.wait(project.start(job.command)):
        return f"{job.label}: exit code {code} after kills: {project.last_line()}"
    if not job.is_whole():
        return f"{job.label}: other bytes after kills"
    left = [p.name for out in job.outputs for p in out.parent.glob(".*.tmp-*")]
    return f"{job.label}: left beside: {left}" if left else None


def fill_disk(project: SmallProject, rng: random.Random, seconds: float) -> Result:
    """Files that can't grow beyond a random size, in every stage: one line, exit code 2."""
    result = Result(
        "full disk", note="a limit on the size of files; one line with the bytes needed"
    )
    end = time.monotonic() + seconds
    for job in rng.sample(project.jobs, len(project.jobs)):
        if time.monotonic() >= end:
            break
        job.remove()
        largest = 4 * 2**10
        code = project.wait(project.start(job.command, limit_files(rng.randrange(1, largest))))
        line = project.last_line()
        if not job.is_absent_or_whole():
            result.add(f"{job.label}: half an output")
        elif code and not (code == 2 and "bytes are free; free space and run again" in line):
            result.add(f"{job.label}: exit code {code}: {line}")
        else:
            result.add(None)
        if problem := _finish(project, job):
            result.lost.append(problem)
    return result


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
    refused = [text for text in outputs if "Directory cannot be locked" in text]
    result.add(None if job.is_whole() else f"{job.label}: other bytes: {outputs}")
    result.add(None if len(refused) <= 1 else "both runs were refused")
    return result
