"""What runs again after a change: exactly what depends on it.

In: a finished small project. Out: results. The whole workflow is made up to date with empty files
in place of outputs that were not made; then one thing changes, and the stages that Snakemake wants
to run are compared with those that read it and all that follow them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torture.result import Result
from torture.small_project import SmallProject

TEACHER_UNET = "data/tiny-teacher/unet/diffusion_pytorch_model.safetensors"


def _params(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "params.yaml"
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new, 1))

    return change


def _touch(root: Path) -> None:
    os.utime(root / TEACHER_UNET)


def _flip(root: Path) -> None:
    data = bytearray((root / TEACHER_UNET).read_bytes())
    data[-1] ^= 1
    (root / TEACHER_UNET).write_bytes(data)


def _code(root: Path) -> None:
    path = root / "workflow/code/distill_controlnet.lock"
    path.write_text(path.read_text() + "x\n")


# What changes, how, and the verbs (or labels) of the stages that read it.
CHANGES: tuple[tuple[str, Callable[[Path], object], set[str]], ...] = (
    ("seed", _params("\nseed: 0", "\nseed: 1"),
     {"deduplicate", "cache_teacher", "generate", "evaluate", "report"}),
    ("device and num_threads of a teacher that is not trained",
     _params("num_threads: 1 ", "num_threads: 2 "),
     {"cache_teacher", "init_student", "distill_unet", "finetune_control", "distill_controlnet",
      "distill_guidance", "generate", "evaluate", "profile", "extract_conditions"}),
    ("canny_low", _params("canny_low: 100", "canny_low: 90"), {"extract_conditions"}),
    ("min_side_px", _params("min_side_px: 48", "min_side_px: 47"), {"curate"}),
    ("one variant's steps", _params("0.002, steps: 4", "0.002, steps: 5"),
     {"distill_unet/elr"}),
    ("guidance_scale", _params("guidance_scale: 3.0", "guidance_scale: 2.5"),
     {"generate", "evaluate", "report"}),
    ("num_bootstrap", _params("num_bootstrap: 100", "num_bootstrap: 101"), {"evaluate"}),
    ("a budget", _params("budget_bytes: 20_000_000_000", "budget_bytes: 20_000_000_001"), set()),
    ("patience of downloads", _params("timeout_s: 10.0", "timeout_s: 11.0"), set()),
    ("the teacher's file touched", _touch, set()),
    ("the teacher's file changed", _flip, {"prepare_teacher"}),
    ("code of one training", _code, {"distill_controlnet"}),
)  # fmt: skip


def staleness(project: SmallProject) -> Result:
    """Twelve changes; each is undone before the next."""
    result = Result("staleness: changes x stages")
    jobs = _make_up_to_date(project)
    for name, change, readers in CHANGES:
        kept = {path: path.read_bytes() for path in _changed_files(project.root)}
        time.sleep(0.05)
        change(project.root)
        found = {job["label"] for job in project.resolve() if job["needed"]}
        wanted = _with_dependents(jobs, readers)
        for job in jobs:
            is_right = (job["label"] in found) == (job["label"] in wanted)
            what = "rerun" if job["label"] in found else "not rerun"
            result.add(None if is_right else f"{name}: {job['label']} is {what}")
        _put_back(project, kept)
    result.note = f"{len(CHANGES)} changes x {len(jobs)} jobs, as Snakemake plans them"
    return result


def _make_up_to_date(project: SmallProject) -> list[dict[str, Any]]:
    jobs = project.resolve()
    for job in jobs:
        for name in job["output"]:
            path = project.root / name
            folder = path.parent if path.suffix else path
            folder.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.touch()
    touched = project.snakemake("--touch", "--forceall", "all")
    output, _ = touched.communicate()
    left = [job["label"] for job in project.resolve() if job["needed"]]
    if touched.returncode or left:
        sys.exit(f"not up to date: {left}\n{output[-2000:]}")
    return jobs


def _changed_files(root: Path) -> list[Path]:
    return [root / "params.yaml", root / TEACHER_UNET,
            root / "workflow/code/distill_controlnet.lock"]  # fmt: skip


def _put_back(project: SmallProject, kept: dict[Path, bytes]) -> None:
    """The old bytes with a time before all outputs."""
    for path, data in kept.items():
        path.write_bytes(data)
        os.utime(path, (0, 0))


def _with_dependents(jobs: Iterable[dict[str, Any]], readers: set[str]) -> set[str]:
    """Labels of the jobs that read it, and of all that follow; jobs come in order."""
    stale, made = set(), set()
    for job in jobs:
        reads = job["label"] in readers or job["label"].split("/")[0] in readers
        if reads or made & set(job["input"]):
            stale.add(job["label"])
            made |= set(job["output"])
    return stale


def clock_set_back(project: SmallProject) -> Result:
    """All files are of tomorrow: Snakemake says so; the stage alone, and the day after, go on."""
    result = Result("clock set back by a day", note="named by Snakemake; equal bytes afterwards")
    project.order_times()
    job = project.jobs[-1]
    targets = [str(path.relative_to(project.root)) for path in job.outputs]
    _shift(project.root, 24 * 3600)
    job.remove()
    run = project.snakemake(*targets)
    output, _ = run.communicate()
    is_right = job.is_whole() if run.returncode == 0 else "clock skew problem" in output
    result.add(None if is_right else f"exit code {run.returncode}: {output[-300:]}")
    job.remove()
    process = project.start(job)
    code = process.wait()
    result.add(None if not code and job.is_whole() else f"stage: {code}: {process.last_line}")
    _shift(project.root, -24 * 3600)
    job.remove()
    run = project.snakemake(*targets)
    output, _ = run.communicate()
    result.add(None if run.returncode == 0 and job.is_whole() else output[-300:])
    return result


def _shift(root: Path, seconds: int) -> None:
    """Move the times of everything there, kept in order."""
    for path in root.rglob("*"):
        time_ns = path.lstat().st_mtime_ns + seconds * 10**9
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


def read_only(project: SmallProject) -> Result:
    """Inputs that can't be written to change nothing; an output there is one line."""
    result = Result("read-only cache", note="a mount of its own, in a namespace of its own")
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        result.note = "not tried: needs root"
        return result
    wanted = {"distill_unet/elr": (0, ""), "cache_teacher/cond/0": (2, "Read-only file system")}
    for job in project.jobs:
        if job.label not in wanted:
            continue
        code, line = wanted[job.label]
        if not code:
            job.remove()
        output, found = _run_read_only(project, job.command)
        is_right = found == code and line in output and job.is_whole() and "Traceback" not in output
        result.add(None if is_right else f"{job.label}: exit code {found}: {output[-300:]}")
    return result


def _run_read_only(project: SmallProject, command: str) -> tuple[str, int]:
    mounts = "mount --bind {0} {0} && mount -o remount,bind,ro {0}"
    inputs = ("data/teacher_cache", "models/teacher")
    script = " && ".join([*(mounts.format(name) for name in inputs), command])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=project.root, text=True, check=False,
        env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout, done.returncode
