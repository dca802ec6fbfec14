"""Has the stage that this process was started for run by the server of its front end.

In: this process, before its imports. Out: its end, as the stage's; or a return, for the stage to
import for itself: by hand, with options of the interpreter, where the server is not to be had, with
DISTILLERY_WARM=0. What is sent is said here; a server is found by all that is not: interpreter,
environment, limits. Not here: what the server does.
"""

import contextlib
import errno
import hashlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

__computes__ = False  # it starts what computes

SWITCH = "DISTILLERY_WARM"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FRONT_ENDS = {"snakemake", "dvc"}
_ONE_JOB = b"--target-jobs"  # of the Snakemake that a cluster runs for a single job
# Which stage it is, and where the shell was: what changes from stage to stage and no import reads.
_PASSING = {"DVC_ROOT", "DVC_STAGE", "OLDPWD", "PWD", "SHLVL", "_"}
_PATIENCE_S = 300.0  # importing takes 5 to 10 s of a processor, which others may use as well
_SERVER = Path(__file__).parent


def hand_over(stages: str, light: Collection[str]) -> None:
    """End as the stage does that a warm process runs; return where this one has to.

    `stages`: their package. For those named in `light` only a server that is there is asked.
    """
    option, module = [*sys.orig_argv[1:3], "", ""][:2]
    # "-m": only while Python looks for the module to run.
    is_plain = option == sys.argv[0] == "-m" and sys.orig_argv[3:] == sys.argv[1:]
    is_stage = is_plain and module.startswith(f"{stages}.")
    if sys.platform != "linux" or not is_stage or os.environ.get(SWITCH) == "0":
        return
    try:
        connection = _connect(module.removeprefix(f"{stages}.") not in light)
        if connection:
            follow(connection, sys.orig_argv[1:], sys.path)
    except OSError as error:
        _say(f"{error.strerror or error}")


def _say(why: str) -> None:
    print(f"no warm start: {why}; the libraries are imported anew", file=sys.stderr)


def _connect(may_start: bool) -> socket.socket | None:
    """A connection to the server named by the environment, or of the front end."""
    if (given := os.environ.get(SWITCH, "")) not in ("", "1"):
        return connect(given)
    if (front_end := find_front_end()) is None:
        return None
    name = _name(front_end)
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return connect(name)
        if not may_start:
            return None
        try:
            _start(name, front_end)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # another stage was faster
                raise


def connect(name: str) -> socket.socket:
    """A connection to a server of this user."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(name)
    if not is_ours(connection):
        raise PermissionError(errno.EPERM, "the server is another user's")
    return connection


def is_ours(connection: socket.socket) -> bool:
    """Whether this user's process is at the other end."""
    asked = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 8)
    return struct.unpack("iI", asked)[1] == os.getuid()


# The front end.


def find_front_end() -> int | None:
    """The process id of the nearest ancestor that is a front end, if it lives where we do."""
    process = os.getppid()
    with contextlib.suppress(OSError):  # another user's
        while process > 1:
            words = _read(process, "cmdline").split(b"\0")
            names = {os.path.basename(word.decode(errors="replace")) for word in words[:3]}
            if names & _FRONT_ENDS and _ONE_JOB not in words:
                return process if _place(process) == _place(os.getpid()) else None
            process = int(_stat(process)[1])
    return None


def _read(process: int, name: str) -> bytes:
    return Path(f"/proc/{process}/{name}").read_bytes()


def _stat(process: int) -> list[bytes]:
    """What the system says of a process, from its state on."""
    return _read(process, "stat").rpartition(b")")[2].split()


def _place(process: int) -> tuple[object, ...]:
    """Its container, cgroup and user; the server shares them with the front end."""
    namespaces = Path(f"/proc/{process}/ns")
    return (
        sorted(os.readlink(path) for path in namespaces.iterdir()),
        os.readlink(f"/proc/{process}/root"), _read(process, "cgroup"), namespaces.stat().st_uid,
    )  # fmt: skip


def _name(front_end: int) -> str:
    """The server's address: a name without a file, which goes with the server.

    Who was started with another environment or other limits finds another server.
    """
    environment = {n: v for n, v in os.environ.items() if n not in _PASSING}
    alike = (
        _stat(front_end)[19], sys.executable, sys.version, sorted(environment.items()),
        _read(os.getpid(), "limits"), os.getpriority(os.PRIO_PROCESS, 0),
        sorted(os.sched_getaffinity(0)), os.getgroups(),
        sorted(path.stat().st_mtime_ns for path in _SERVER.glob("*.py")),
    )  # fmt: skip
    return f"\0distillery-{front_end}-{hashlib.sha256(repr(alike).encode()).hexdigest()[:32]}"


def _start(name: str, front_end: int) -> None:
    """Start a server; who connects meanwhile waits until it has imported."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen(128)
        listener.set_inheritable(True)
        nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", str(_SERVER), str(listener.fileno()), str(front_end)],
            os.environ, file_actions=nothing, setpgroup=0, setsigmask=(),
        )  # fmt: skip


# The stage.


def _is_welcome(connection: socket.socket) -> bool:
    """Wait until the server has time; False, after one line, if it takes nobody."""
    connection.settimeout(_PATIENCE_S)
    why = ""
    try:
        with contextlib.suppress(ConnectionResetError):
            answer = connection.recv(200)
            why = answer.decode().rstrip("\n") if answer else "the server has ended"
    except TimeoutError:
        why = f"the server did not answer in {_PATIENCE_S:.0f} s"
    if why:
        _say(why)
    connection.settimeout(None)
    return not why


def follow(connection: socket.socket, arguments: list[str], path: Sequence[str] = ()) -> None:
    """Send what this process was started with, and end as the child does that runs it.

    Until then signals go on to the child. Returns, after one line, where the server takes nobody;
    raises OSError where nothing could be sent.
    """
    if not _is_welcome(connection):
        return
    numbers = [n for n in FORWARDED if signal.getsignal(n) != signal.SIG_IGN]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    request = {
        "arguments": arguments, "path": list(path), "folder": os.getcwd(),
        "environment": dict(os.environ), "umask": _umask(), "blocked": sorted(blocked),
        "ignored": sorted(set(FORWARDED) - set(numbers)),
    }  # fmt: skip
    try:
        with os.fdopen(os.memfd_create("request"), "wb") as file:
            file.write(json.dumps(request).encode())
            file.flush()
            socket.send_fds(connection, [b"\0"], [0, 1, 2, file.fileno()])

        _forward_to(connection, numbers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    _end_as(connection)


def _forward_to(connection: socket.socket, numbers: Sequence[int]) -> None:
    """Have the server give these signals to the child, and stop it while this process stops."""

    def tell(number: int, _: FrameType | None = None) -> None:
        with contextlib.suppress(OSError):  # the server has ended
            connection.send(bytes([number]))

    def stop(*_: object) -> None:
        tell(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        tell(signal.SIGCONT)

    for number in numbers:
        signal.signal(number, tell)
    signal.signal(signal.SIGTSTP, stop)


def _umask() -> int:
    os.umask(now := os.umask(0))
    return now


def _end_as(connection: socket.socket) -> NoReturn:
    """Wait for the child, and end as it did: with its exit code, or by its signal."""
    with contextlib.suppress(OSError):
        if told := connection.recv(20):
            code = int(told)
            if code >= 0:
                os._exit(code)
            _die(-code)
    print("the process that ran this was killed; run the same command to go on", file=sys.stderr)
    os._exit(128 + signal.SIGKILL)


def _die(number: int) -> NoReturn:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left one
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # not reached
