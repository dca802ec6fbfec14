"""Where a stage keeps what survives an interruption, and whose code began it.

In: a stage's label, its task (inputs and params) and its code, both as hashes. Out: the folder
`work/<stage>/<task>-<code>`. Work that other code has begun for the same task is kept and named in
one line; `DISTILLERY_RESUME=old-code` goes on from it. One process at a time works at a label. Not
here: what is in the folder.
"""

import contextlib
import fcntl
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from distillery.core.errors import DistilleryError

RESUME = "DISTILLERY_RESUME"
OLD_CODE = "old-code"
_DONE = "done"  # a file in work that became an artefact
_LENGTH = 16


@dataclass(frozen=True)
class Work:
    """A folder that may not exist yet; `begun_with` is the code that began it, if not today's."""

    folder: Path
    begun_with: str | None = None

    def finish(self) -> None:
        """Note that the stage has finished: nobody is told of this work any more."""
        if self.folder.is_dir():
            (self.folder / _DONE).touch()


@contextlib.contextmanager
def alone(root: Path, label: str) -> Iterator[None]:
    """Wait, after one line that says so, until no other process works at this label.

    A front end that was killed leaves its stage running, and the same command given again would
    share scratch files with it. The system frees the lock of a process that ends in any way; a file
    system without locks is taken as it is.
    """
    path = root / "locks" / f"{label}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        with contextlib.suppress(OSError):
            _lock(file, label)
        yield


def _lock(file: TextIO, label: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read() or "another process"
        print(f"{label}: waits for {holder}, which works at the same", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()


def find_work(root: Path, label: str, task: str, code: str) -> Work:
    """The work of a stage under `root`: its own code's, or what other code began if told so.

    Raises DistilleryError for a value of DISTILLERY_RESUME that means nothing.
    """
    place = root / label.split("/")[0]
    own = place / f"{task[:_LENGTH]}-{code[:_LENGTH]}"
    if (wish := os.environ.get(RESUME, "")) not in ("", OLD_CODE):
        raise DistilleryError(f"{RESUME}={wish}: unknown; it is {OLD_CODE} or not set")
    begun = [p for p in place.glob(f"{task[:_LENGTH]}-*") if p != own and _is_interrupted(p)]
    if not begun:
        return Work(own)
    newest = max(begun, key=lambda path: path.stat().st_mtime)
    if wish == OLD_CODE:
        print(f"{label}: goes on from {newest}, begun with other code", file=sys.stderr)
        return Work(newest, newest.name.rpartition("-")[2])
    if not own.exists():
        print(
            f"{label}: starts anew: {newest} was begun with other code; it is kept, and "
            f"{RESUME}={OLD_CODE} before the command goes on from it",
            file=sys.stderr,
        )
    return Work(own)


def _is_interrupted(folder: Path) -> bool:
    return any(folder.iterdir()) and not (folder / _DONE).exists()
