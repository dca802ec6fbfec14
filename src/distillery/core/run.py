"""One execution of a stage: its work folder, finished shards, progress and record.

The work folder is declared to neither front end, because both delete declared outputs before a
rerun: what is there survives an interruption and is picked up by the same command (`core.work` says
when). `work/` also holds what may vary from run to run (`work/runs/`), out of every artefact.
"""

import functools
import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distillery.core.artifacts import hash_file, write_json
from distillery.core.progress import bar
from distillery.core.publishing import count_bytes

FINISHED = "finished"  # folder of the files that `Run.reuse` finds, in the work folder


@dataclass(frozen=True)
class Run:
    """What a stage's function gets beside its params and paths.

    `made_by`: a hash of its code and libraries.
    """

    label: str
    fingerprint: str
    work_root: Path
    folder: Path | None = None
    made_by: str = ""

    @functools.cached_property
    def work(self) -> Path:
        """Folder for resume state, of this fingerprint or the one given; created on first use."""
        own = self.work_root / self.label.split("/")[0] / self.fingerprint[:16]
        folder = self.folder or own
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def reuse(self, path: Path, name: str | None = None) -> bool:
        """Put a file that an earlier, interrupted run finished at `path`, if it is undamaged.

        `name` tells files of one stage apart that are called alike in different folders.
        """
        kept, recorded = self._kept(name or path.name)
        if not (kept.is_file() and recorded.is_file()):
            return False
        if recorded.read_text() != hash_file(kept):
            kept.unlink()
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        _link(kept, path)
        return True

    def finish(self, path: Path, name: str | None = None) -> None:
        """Record that the file at `path` is complete, so that `reuse` finds it next time."""
        kept, recorded = self._kept(name or path.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.unlink(missing_ok=True)
        _link(path, kept)
        recorded.write_text(hash_file(path))

    def _kept(self, name: str) -> tuple[Path, Path]:
        kept = self.work / FINISHED / name
        return kept, kept.with_name(kept.name + ".sha256")

    def progress(
        self, total: int | None, *, initial: int = 0, unit: str = "step", what: str = ""
    ) -> tqdm:
        """A bar labelled with this stage; call `update(n)`, `close()`."""
        return bar(total, f"{self.label} {what}".strip(), initial=initial, unit=unit)


def _link(source: Path, target: Path) -> None:
    """Hard link, or copy where the file system has none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def record_run(
    run: Run, *, seconds: float, outputs: Iterable[Path], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Write what is measured of a run, and the params that it read, to `work/runs/<label>.json`,
    beside no artefact."""
    record = {
        "label": run.label,
        "fingerprint": run.fingerprint,
        "seconds": round(seconds, 3),
        "startup_s": round(max(0.0, _process_age_s() - seconds), 3),
        "bytes": sum(map(count_bytes, outputs)),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "params": params,
    }
    path = runs_folder(run.work_root) / f"{run.label}.json"
    write_json(path, record)
    return record


def _process_age_s() -> float:
    """Seconds since this process was started, imports included; 0 where there is no /proc."""
    try:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        now_s = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return now_s - int(started) / os.sysconf("SC_CLK_TCK")


def runs_folder(work_root: Path) -> Path:
    """Where `record_run` writes."""
    return work_root / "runs"


def read_run(work_root: Path, label: str) -> dict[str, Any] | None:
    """The record of the last run of `label`, or None."""
    path = runs_folder(work_root) / f"{label}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def read_times(work_root: Path) -> dict[str, str]:
    """{label: seconds its last run took}, of every stage that ran here, oldest first."""
    records = [json.loads(path.read_text()) for path in runs_folder(work_root).rglob("*.json")]
    records.sort(key=lambda record: (record["finished"], record["label"]))
    return {record["label"]: f"{record['seconds']:.1f} s" for record in records}
