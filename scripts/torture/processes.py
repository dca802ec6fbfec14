"""Commands in forks of this process, which has imported all that they import.

In: a module, its arguments, and when to stop it: after seconds on a processor (load changes
nothing), or before the n-th change of names and files. Out: how it ended, what it said, what it
took. A fork has a process group of its own, as a terminal's command has.
"""

import contextlib
import mmap
import os
import pickle
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LOOK_EVERY_S = 0.003
_HANDLED = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Stop:
    """A signal and its instant: seconds on a processor, or a change by number."""

    number: int
    cpu_s: float | None = None
    change: int | None = None


class Process:
    """`python -m words` in `folder`; `prepare` is called before, in the fork."""

    def __init__(
        self, words: Sequence[str], folder: Path, stop: Stop | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.cpu_s = 0.0
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        ours, theirs = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        self.pid = fork(lambda: self._become(words, folder, stop, prepare), theirs)
        with contextlib.suppress(OSError):  # the fork was faster
            os.setpgid(self.pid, self.pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(theirs)
        self._said: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=[ours], daemon=True)
        self._reader.start()
        if stop and stop.cpu_s is not None:
            self._stop(stop.cpu_s, stop.number)

    def wait(self) -> int:
        """The exit code; below zero for a signal."""
        _, status, used = os.wait4(self.pid, 0)
        self.cpu_s = used.ru_utime + used.ru_stime
        return os.waitstatus_to_exitcode(status)

    @property
    def text(self) -> str:
        """All that it and what it started have said until the last of them ended."""
        self._reader.join()
        return b"".join(self._said).decode(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line of it."""
        return (self.text.splitlines() or [""])[-1]

    @property
    def num_changes(self) -> int:
        """How often it changed names or opened files to write."""
        return int.from_bytes(self._shared[:8], "little")

    @property
    def last_path(self) -> str:
        """What it changed last, or was about to change."""
        return self._shared[8:].rstrip(b"\0").decode()

    def _read(self, pipe: int) -> None:
        """A pipe, because a limit on the size of files would hold for a log too."""
        with os.fdopen(pipe, "rb") as output:
            self._said.append(output.read())

    def _stop(self, cpu_s: float, number: int) -> None:
        while (used := _cpu_s(self.pid)) is not None and used < cpu_s:
            time.sleep(_LOOK_EVERY_S)
        os.kill(-self.pid if number == signal.SIGINT else self.pid, number)  # Ctrl-C goes to all

    def _become(
        self, words: Sequence[str], folder: Path, stop: Stop | None, prepare: Callable[[], object]
    ) -> None:
        os.setpgid(0, 0)
        os.chdir(folder)
        sys.path[:0] = [str(folder / "src")]
        sys.argv = ["-m", *words[1:]]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from distillery.core import interrupts

        interrupts.end_at_once_while_importing()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        prepare()
        sys.addaudithook(lambda event, about: self._note(event, about, stop))
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)

    def _note(self, event: str, about: tuple[Any, ...], stop: Stop | None) -> None:
        if event not in _CHANGES and not (event == "open" and (about[2] or 0) & _WRITES):
            return
        num, path = self.num_changes, os.fsencode(str(about[0]))[:1000]
        self._shared[:8] = (num + 1).to_bytes(8, "little")
        self._shared[8:1008] = path.ljust(1000, b"\0")
        if stop and stop.change == num:
            os.kill(0 if stop.number == signal.SIGINT else os.getpid(), stop.number)


def in_forks(*acts: Callable[[], Any]) -> list[Any]:
    """What each returns, all at once, each in a fork."""
    pipes, children = [], []
    for act in acts:
        ours, theirs = os.pipe()
        children.append(fork(lambda act=act, to=theirs: os.write(to, pickle.dumps(act()))))
        os.close(theirs)
        pipes.append(ours)
    answers = []
    for pipe, child in zip(pipes, children, strict=True):
        with os.fdopen(pipe, "rb") as answer:
            answers.append(pickle.load(answer))  # an EOFError says that the fork failed
        os.waitpid(child, 0)
    return answers


def fork(act: Callable[[], object], output: int | None = None) -> int:
    """The process id of a fork that acts, and ends as an interpreter does."""
    if child := os.fork():
        return child
    code = 1
    try:
        for standard in (1, 2) if output is not None else ():
            os.dup2(output, standard)
        act()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _cpu_s(pid: int) -> float | None:
    """Seconds on a processor so far; None once it has ended."""
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None if state == "Z" else sum(map(int, fields[10:12])) / os.sysconf("SC_CLK_TCK")
