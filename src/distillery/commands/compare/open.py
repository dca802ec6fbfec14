"""A run to compare: a folder, or a revision's params and metrics from Git and DVC's cache.

In: a folder or a revision of a Git repository. Out: a folder with `params.yaml` and `metrics/`, a
temporary one for a revision. Nothing is run, and nothing in the workspace changes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from distillery.core.errors import DistilleryError

PARAMS = "params.yaml"


@contextmanager
def opened(name: str, repository: Path) -> Iterator[Path]:
    """A run's folder as it is, or a revision's params and metrics in a temporary one."""
    if Path(name).is_dir():
        yield Path(name)
        return
    revision = _revision(name, repository)
    if revision is None:
        raise DistilleryError(
            f"{name}: neither a folder nor a revision of this repository, nor an experiment of DVC"
        )
    with tempfile.TemporaryDirectory() as folder:
        _check_out(revision, repository, Path(folder))
        yield Path(folder)


def _revision(name: str, repository: Path) -> str | None:
    """`name` where Git knows it, else the commit of DVC's experiment of that name."""
    if _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None:
        return name
    known = _git(repository, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    rows = (line.split() for line in (known or b"").decode().splitlines())
    return next((commit for commit, ref in rows if ref.rpartition("/")[2] == name), None)


def _check_out(revision: str, repository: Path, folder: Path) -> None:
    text = _git(repository, "show", f"{revision}:{PARAMS}")
    if text is None:
        raise DistilleryError(f"{revision}: has no {PARAMS}")
    (folder / PARAMS).write_bytes(text)
    metrics = path_of(folder, "metrics")
    names = _git(repository, "ls-tree", "-r", "--name-only", revision, "--", metrics) or b""
    tracked = [name for name in names.decode().splitlines() if name.endswith(".json")]
    for name in tracked:
        _write(folder / name, _git(repository, "show", f"{revision}:{name}") or b"")
    lock = _git(repository, "show", f"{revision}:dvc.lock")
    outputs = _locked(lock, metrics) if lock else {}
    cache = _cache(repository) if outputs else Path()
    for output, md5 in outputs.items():
        kept = cache / "files/md5" / md5[:2] / md5[2:]
        if kept.is_file():
            _write(folder / output, kept.read_bytes())
        else:
            _fetch(output, revision, repository, folder)
    if not tracked and not outputs:
        raise DistilleryError(
            f"{revision}: no metrics in Git or in its dvc.lock; check it out into a folder, run "
            "the pipeline there and compare the folders"
        )


def _locked(lock: bytes, metrics: str) -> dict[str, str]:
    """{path: MD5} of the metrics that a dvc.lock knows."""
    stages = (yaml.safe_load(lock) or {}).get("stages", {})
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith(f"{metrics}/")}


def _cache(repository: Path) -> Path:
    """DVC's own cache folder: reading it takes no time, and `dvc get` 3 s a file."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    return repository / done.stdout.strip() if done.returncode == 0 else repository


def _fetch(output: str, revision: str, repository: Path, folder: Path) -> None:
    """One output of a revision, from DVC's cache or its remote."""
    target = folder / output
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dvc", "get", "--quiet", "--force", "--rev", revision]
    command += ["-o", str(target), str(repository.resolve()), output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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


def path_of(folder: Path, name: str) -> str:
    """Where a run's `metrics` or `samples` are, in its folder."""
    return read_params(folder).get("paths", {}).get(name, name)


def read_params(folder: Path) -> dict[str, Any]:
    """The params of a run, unchecked: they may be of an older version."""
    path = folder / PARAMS
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DistilleryError(f"{path}: not found; give a folder with a run's params") from None
    except yaml.YAMLError as error:
        raise DistilleryError(f"{path}: not valid YAML ({error.__class__.__name__})") from None
    return values if isinstance(values, dict) else {}
