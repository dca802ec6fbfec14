"""A log file per stage run, beside what the terminal shows.

In: a path and a label. Out: everything written to standard error while the context is open, each
line beginning with the label, since parallel jobs share a terminal, and one now and then where
nothing else is said; without redrawn bars, and with the full traceback of an error of which the
terminal shows one line.
"""

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from distillery.core.errors import DistilleryError
from distillery.core.interrupts import Interrupted

__computes__ = False  # texts, not part of any stage's code
SILENCE_S = 90.0  # longer than bars are silent, which say more
_TRACE = "Traceback (most recent call last):"
_OWN = (DistilleryError.__module__, Interrupted.__module__)  # their messages say it all


def log_path(work_root: Path, label: str) -> Path:
    """Where the log of an artefact is: `work/logs/curate/0.log`."""
    return work_root / "logs" / f"{label}.log"


@contextlib.contextmanager
def log_to(path: Path, label: str) -> Iterator[None]:
    """Copy standard error to a new file at `path`; on both, put `label` before lines without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("w", encoding="utf-8")
    except OSError as error:
        raise DistilleryError(f"{path}: {error.strerror}; make room or rights for it") from error
    try:
        tee = _Tee(sys.stderr, log, label)
        with contextlib.redirect_stderr(tee), _never_silent(tee):
            yield
    except BaseException:
        with contextlib.suppress(OSError):
            log.write(traceback.format_exc())
        raise
    finally:
        with contextlib.suppress(OSError):
            log.close()


@contextlib.contextmanager
def _never_silent(tee: "_Tee") -> Iterator[None]:
    """Say a line whenever nothing was said for `SILENCE_S`."""
    started, ended = time.monotonic(), threading.Event()

    def watch() -> None:
        while not ended.wait(SILENCE_S / 9):
            if (now := time.monotonic()) - tee.said_at >= SILENCE_S:
                with contextlib.suppress(OSError):
                    tee.write(f"still running after {(now - started) / 60:.0f} min\n")
                    tee.flush()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def errors_since(folder: Path, started: float) -> list[str]:
    """`<label>: <message>` of every log below `folder` that ended in an error after `started`, in
    seconds since the epoch; of an error that nobody foresaw also where its traceback is."""
    logs = sorted(folder.rglob("*.log"), key=lambda log: log.stat().st_mtime)
    found = []
    for log in (log for log in logs if log.stat().st_mtime >= started):
        label = log.relative_to(folder).with_suffix("").as_posix()
        _, traced, trace = log.read_text(encoding="utf-8").rpartition(_TRACE)
        if traced:
            found += [f"{label}: {line}" for line in _messages(trace, log)]
    return found


def _messages(trace: str, log: Path) -> list[str]:
    """The lines of a traceback's message."""
    lines = trace.splitlines()
    first = next((i for i, line in enumerate(lines) if i and line and not line[0].isspace()), 0)
    if not lines[first].startswith(_OWN):
        return [f"{lines[first]} (traceback: {log})"]
    return [lines[first].split(": ", 1)[-1], *lines[first + 1 :]]


class _Tee:
    """Standard error that labels its lines and also writes them to a log."""

    def __init__(self, stream: TextIO, log: TextIO, label: str) -> None:
        self._stream, self._log, self._label = stream, log, label
        self.said_at = time.monotonic()
        self._is_new = True  # nothing of the line is written yet
        self._is_drawn = False  # a bar stands where the next line would begin

    def write(self, text: str) -> int:
        self.said_at = time.monotonic()
        was_drawn, self._is_drawn = self._is_drawn, text.startswith("\r")
        if self._is_drawn or (was_drawn and text == "\n"):  # a bar that is redrawn, and its end
            return self._stream.write(text)
        if was_drawn:
            self._stream.write("\n")
        labelled = "".join(map(self._labelled, text.splitlines(keepends=True)))
        with contextlib.suppress(OSError):  # a full disk is reported where artefacts are written
            self._log.write(labelled)
        self._stream.write(labelled)
        return len(text)

    def _labelled(self, line: str) -> str:
        is_new, self._is_new = self._is_new, line.endswith("\n")
        needs = is_new and line.strip() and not line.startswith(self._label)
        return f"{self._label}: {line}" if needs else line

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._log.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
