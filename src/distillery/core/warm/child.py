"""A child of the server: what its client was started with, taken on, run and ended.

In: what `client.follow` sends. Out: the end of this process, as of one that an interpreter was
started for. Nothing of this package is imported but from where the client finds it.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, NoReturn

__computes__ = False  # it starts what computes

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a stage ends in one line
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # Linux, prctl(2)


class Request:
    """What a client was started with; `files` are its standard input, output and error."""

    def __init__(self, files: list[int], told: dict[str, Any]) -> None:
        self.files, self.arguments, self.path = files, told["arguments"], told["path"]
        self._told, self._server = told, os.getpid()

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            os.close(file)

    def become(self) -> None:
        """In a child: be as the client was when it was started; the server's end is the child's.

        Signals wait until `listen`.
        """
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._server:
            os._exit(1)  # it was killed meanwhile
        for own, given in enumerate(self.files):
            os.dup2(given, own)
        self.close()
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
        for number in ENDS:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in self._told["ignored"] else usual)
        os.chdir(self._told["folder"])
        os.umask(self._told["umask"])
        os.environ.clear()
        os.environ.update(self._told["environment"])
        sys.path[:] = self.path or sys.path
        sys.excepthook = _without_own
        importlib.invalidate_caches()

    def listen(self) -> None:
        """From now on signals come."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._told["blocked"])

    def run_module(self) -> None:
        """Do what `python -m MODULE ARGUMENTS` does."""
        _, module, *arguments = self.arguments
        sys.argv = ["-m", *arguments]
        _prctl(_PR_SET_NAME, module.rpartition(".")[2].encode())  # what `top` shows
        package, dot, _ = module.partition(".")
        if dot:
            importlib.import_module(package)  # says what signals do
        self.listen()
        sys.modules["__main__"] = ModuleType("__main__")
        runpy._run_module_as_main(module)  # what an interpreter calls for `-m`


def receive(connection: socket.socket) -> Request | None:
    """What a client sends; None if it is gone."""
    _, files, _, _ = socket.recv_fds(connection, 1, 4)
    if len(files) != 4:
        return None
    with os.fdopen(files.pop(), "rb") as file:
        file.seek(0)
        return Request(files, json.loads(file.read()))


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, value)


def end_after(act: Callable[[], object]) -> NoReturn:
    """Act and end as an interpreter does, but for taking apart all that was imported (0.5 s)."""
    code = 0
    try:
        act()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code & 0xFF)


def _without_own(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """Say of an error what Python says of it in a process that was started for its module."""
    inner = trace
    while inner and inner.tb_frame.f_globals.get("__name__") != "runpy":
        inner = inner.tb_next
    sys.__excepthook__(kind, error.with_traceback(inner or trace), inner or trace)
