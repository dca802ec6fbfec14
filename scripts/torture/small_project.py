"""A small project with a finished chain, whose stages start in a moment.

In: a folder. Out: the tiny preset's stages up to one model of each family, as jobs that can be run
again, killed and compared. Stages run in forks of this process, which has imported torch but
nothing of the project: a fork runs the project's own code.
"""

import contextlib
import gc
import hashlib
import json
import os
import resource
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warm_python import CLASSES, MODULES

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "metrics/unet/elr.json", "models/control/elr", "models/controlnet/distilled",
    "models/guidance/lora_distill_elr",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A stage's command, its output, what that hashed to and how long it took."""

    label: str
    command: str
    outputs: tuple[Path, ...]
    seconds: float = 0.0
    hashes: tuple[str, ...] = field(default=())

    def is_whole(self) -> bool:
        """Whether every output is there and as it was."""
        return tuple(map(hash_tree, self.outputs)) == self.hashes

    def is_absent_or_whole(self) -> bool:
        """Whether no output is there in part."""
        pairs = zip(self.outputs, self.hashes, strict=True)
        return all(not path.exists() or hash_tree(path) == wanted for path, wanted in pairs)

    def remove(self) -> None:
        """Delete the outputs, as front ends do before a rerun."""
        for path in self.outputs:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class SmallProject:
    """The folder and its jobs, in the order in which they run."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.log = self.root.parent / "stage.log"
        self._reader: threading.Thread | None = None
        self._times = self.root.parent / "seconds.json"
        if not root.exists():
            subprocess.run([sys.executable, "tests/project.py", str(root)], cwd=ROOT, check=True)
        _import_all()
        self.jobs = [self._finish(job) for job in self.resolve(TARGETS)]

    def resolve(self, targets: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """What workflow/jobs.py says of the targets' jobs."""
        command = [sys.executable, "workflow/jobs.py", *targets]
        environment = {**os.environ, "PYTHONPATH": "src"}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _finish(self, described: dict[str, Any]) -> Job:
        """The job, run now if it was not before."""
        outputs = tuple(self.root / name for name in described["output"])
        job = Job(described["label"], described["command"], outputs)
        times = json.loads(self._times.read_text()) if self._times.exists() else {}
        if job.label not in times or not all(path.exists() for path in outputs):
            started = time.monotonic()
            if code := self.wait(self.start(job.command)):
                sys.exit(f"{job.label}: exit code {code}\n{self.log.read_text()}")
            times[job.label] = time.monotonic() - started
            self._times.write_text(json.dumps(times))
        hashes = tuple(map(hash_tree, outputs))
        return Job(job.label, job.command, outputs, times[job.label], hashes)

    def order_times(self) -> None:
        """Times of files as if all jobs had just run in their order."""
        made = [path for job in self.jobs for path in job.outputs]
        start = time.time() - len(made) - 2
        _set_times(self.root, start)
        for number, path in enumerate(made, start=1):
            _set_times(path, start + number)

    def start(self, command: str, prepare: Callable[[], object] = lambda: None) -> int:
        """Run a stage's command in a fork; returns its process id. Its output goes to the log."""
        _, _, _, module, *arguments = shlex.split(command)
        ours, theirs = os.pipe()
        if child := os.fork():
            os.close(theirs)
            self._reader = threading.Thread(target=self._copy_to_log, args=[ours])
            self._reader.start()
            return child
        code = 1
        try:
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            os.chdir(self.root)
            sys.path[:0] = [str(self.root / "src")]
            sys.argv = ["-m", *arguments]
            prepare()
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _copy_to_log(self, pipe: int) -> None:
        """A pipe, because a limit on the size of files would hold for a log too."""
        with os.fdopen(pipe, "rb") as output:
            self.log.write_bytes(output.read())

    def wait(self, child: int) -> int:
        """The exit code of a fork; below zero for a signal."""
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if self._reader:
            self._reader.join()
        return code

    def last_line(self) -> str:
        """The last line that a stage printed."""
        return (self.log.read_text().splitlines() or [""])[-1]

    def snakemake(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake in the project."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1", *arguments], cwd=self.root,
            env={**os.environ, "PYTHONPATH": "src", "PATH": path}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _set_times(path: Path, seconds: float) -> None:
    for file in [path, *path.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # a temporary that went meanwhile
            os.utime(file, (seconds, seconds), follow_symlinks=False)


def limit_files(num_bytes: int) -> Callable[[], None]:
    """No file can grow beyond so many bytes: writing fails as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def hash_tree(path: Path) -> str:
    """sha256 of all names and bytes below a path, without the front ends' own files."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file.name != ".snakemake_timestamp":
            digest.update(f"{file.relative_to(path)};".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _import_all() -> None:
    for name in MODULES:
        __import__(name)
    for name, classes in CLASSES.items():
        for kind in classes:
            getattr(sys.modules[name], kind)
    gc.freeze()
