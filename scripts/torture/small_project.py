"""A small project with a finished chain, whose stages start in a moment.

In: a folder. Out: the preset quick's stages up to one model of each family, as jobs that can be run
again, stopped and compared. This process imports what stages import, from the project's own
folder; stages and front ends are forks of it.
"""

import contextlib
import dataclasses
import gc
import hashlib
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from torture.processes import Process, Stop, fork, in_forks
from warm_python import import_all, serve, write_client

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "metrics/unet/elr.json", "models/control/elr", "models/controlnet/distilled",
    "models/guidance/lora_distill_elr",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A stage's command, its outputs, what they hashed to, and what it took from nothing."""

    label: str
    command: str
    outputs: tuple[Path, ...]
    hashes: tuple[str, ...] = ()
    cpu_s: float = 0.0
    num_changes: int = 0

    @property
    def stage(self) -> str:
        """Its verb."""
        return self.label.split("/")[0]

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
        if not root.exists():
            subprocess.run([sys.executable, "tests/project.py", str(root)], cwd=ROOT, check=True)
        _import_project(self.root / "src")
        self.python, socket = write_client(Path(tempfile.mkdtemp(dir=self.root.parent)))
        process = os.getpid()
        fork(lambda: serve(str(socket), process))
        while not socket.exists():
            time.sleep(0.01)
        self.jobs = self._finish(self.root.parent / "jobs.json")

    def _finish(self, known: Path) -> list[Job]:
        """The jobs, each run now if it was not before."""
        taken = json.loads(known.read_text()) if known.exists() else {}
        jobs = []
        for described in self.resolve(*TARGETS):
            outputs = tuple(self.root / name for name in described["output"])
            job = Job(described["label"], described["command"], outputs)
            if job.label not in taken or not all(path.exists() for path in outputs):
                taken[job.label] = self._measure(job)
                known.write_text(json.dumps(taken))
            job = dataclasses.replace(job, **taken[job.label])
            jobs.append(dataclasses.replace(job, hashes=tuple(map(hash_tree, outputs))))
        return jobs

    def _measure(self, job: Job) -> dict[str, Any]:
        self.start_anew(job)
        process = self.start(job)
        if code := process.wait():
            sys.exit(f"{job.label}: exit code {code}\n{process.text}")
        return {"cpu_s": process.cpu_s, "num_changes": process.num_changes}

    def copy(self, root: Path) -> "SmallProject":
        """Another folder with the same in it, for what runs beside."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root, root, symlinks=True)
        other = SmallProject.__new__(SmallProject)
        other.root, other.python = root, self.python
        places = [tuple(root / p.relative_to(self.root) for p in job.outputs) for job in self.jobs]
        pairs = zip(self.jobs, places, strict=True)
        other.jobs = [dataclasses.replace(job, outputs=outputs) for job, outputs in pairs]
        return other

    def resolve(self, *targets: str) -> list[dict[str, Any]]:
        """What workflow/jobs.py says of the targets' jobs."""

        def ask() -> str:
            os.chdir(self.root)
            sys.argv = ["workflow/jobs.py", *targets]
            with contextlib.redirect_stdout(io.StringIO()) as answer:
                runpy.run_path(sys.argv[0], run_name="__main__")
            return answer.getvalue()

        return [json.loads(line) for line in in_forks(ask)[0].splitlines()]

    def start_anew(self, job: Job) -> None:
        """Remove its outputs, and what earlier runs of its stage left to go on from."""
        job.remove()
        shutil.rmtree(self.root / "work" / job.stage, ignore_errors=True)

    def start(
        self, job: Job, stop: Stop | None = None, prepare: Callable[[], object] = lambda: None
    ) -> Process:
        """Run a stage's command in a fork."""
        return Process(shlex.split(job.command)[3:], self.root, stop, prepare)

    def start_front_end(self, *words: str, stop: Stop | None = None) -> Process:
        """Run Snakemake or DVC in a fork; their stages are forks of another warm process."""
        environment = self._environment()
        return Process(words, self.root, stop, lambda: os.environ.update(environment))

    def snakemake(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake in the project."""
        return subprocess.Popen(
            [str(self.python / "python"), "-m", "snakemake", "--cores", "1", *arguments],
            cwd=self.root, env={**os.environ, **self._environment()}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        places = (str(self.python), str(Path(sys.executable).parent), os.environ["PATH"])
        return {"PYTHONPATH": "src", "PATH": os.pathsep.join(places), "DVC_NO_ANALYTICS": "1"}

    def wait_for_orphans(self) -> None:
        """Until nothing that a killed front end had started runs any more."""
        while any(_folder(process) == self.root for process in psutil.process_iter()):
            time.sleep(0.05)

    def left_over(self) -> list[str]:
        """Names of temporaries anywhere in it."""
        names = ("data", "models", "samples", "metrics", "work")
        return [p.name for name in names for p in (self.root / name).rglob(".*.tmp-*")]

    def order_times(self) -> None:
        """Times of files as if all jobs had just run in their order."""
        made = [path for job in self.jobs for path in job.outputs]
        start = time.time() - len(made) - 2
        _set_times(self.root, start)
        for number, path in enumerate(made, start=1):
            _set_times(path, start + number)


def _folder(process: psutil.Process) -> Path | None:
    with contextlib.suppress(psutil.Error):
        return Path(process.cwd())
    return None


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


def _import_project(source: Path) -> None:
    """The libraries, and all of the project but its commands: they are what is run."""
    import_all()
    sys.path.insert(0, str(source))
    import distillery

    not_these = ("distillery.stages.", "distillery.cli")
    for module in pkgutil.walk_packages(distillery.__path__, "distillery."):
        if not (module.name.startswith(not_these) or module.name.endswith("__main__")):
            importlib.import_module(module.name)
    gc.freeze()
