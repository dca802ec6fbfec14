"""Files and folders that appear whole or not at all, and room for them.

In: a final name, and code that writes. Out: what it wrote, at that name, with no moment at which
the name is missing or half of it is there; or an error of one line for a disk that is full or
read-only. What killed processes left beside is removed by the next one that publishes there. No
byte of what a stage makes depends on this module.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distillery.core.errors import DistilleryError

__computes__ = False  # it puts things in place

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM}
# What libraries in Rust say of the system's errors: safetensors, tokenizers.
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+),")
_TEMPORARY = re.compile(r"\..+\.tmp-(?:old-)?(?:(?P<place>\w{8})-(?P<pid>\d+)-(?P<start>\d+)-)?\w+")
_ABANDONED_S = 3 * 24 * 3600  # of a temporary whose owner can't be asked, on another machine say
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux, renameat2(2)
_OVERTAKEN = {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
_MAX_TRIES = 1000
_swept: set[Path] = set()


@contextmanager
def publish(final: Path) -> Iterator[Path]:
    """Yield a name beside `final` to write to; on success fsync it and put it at `final`.

    Works for files and folders (the caller creates a folder with `mkdir`). After an error, and
    after a kill, nothing half-written is at the final name; errors of this package name `final`,
    not the temporary that is gone. A file that others may have mapped is replaced, never rewritten,
    and a symbolic link is replaced, not followed.
    """
    _require_replaceable(final)
    partial = final.with_name(f".{final.name}.tmp-{_owner()}-{uuid.uuid4().hex[:8]}")
    try:
        with room_for(final, lambda: count_bytes(partial)):
            final.parent.mkdir(parents=True, exist_ok=True)
            _sweep(final.parent)
            yield partial
            _sync(partial)
            _replace(partial, final)
    except DistilleryError as error:
        if str(partial) not in str(error):
            raise
        raise type(error)(str(error).replace(str(partial), str(final))) from error
    finally:
        _remove(partial)


def _require_replaceable(final: Path) -> None:
    """No device, pipe or socket: root would put a file in its place, for every program here."""
    is_special = False
    with contextlib.suppress(OSError):
        mode = final.stat().st_mode  # asked once: another writer may come between two questions
        is_special = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    if is_special or os.path.dirname(os.path.abspath(final)) == "/dev":
        raise DistilleryError(f"{final}: no place for a file or folder; give another one")


@contextmanager
def room_for(path: Path, num_bytes: int | Callable[[], int] | None = None) -> Iterator[None]:
    """Make one line of what the system says of a disk that is full or read-only.

    `num_bytes` are those to be written at `path`, or a function that tells those written so far.
    """
    try:
        yield
    except Exception as error:  # libraries wrap the system's error in their own
        number = _system_error(error)
        named = getattr(error, "filename", None)
        place = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else path
        if number == errno.EROFS or (number in _REFUSED and place.is_relative_to(path.parent)):
            raise DistilleryError(
                f"{place}: {os.strerror(number)}; make it readable and writable, or set paths in "
                "params.yaml to another place"
            ) from error
        if number not in _FULL:
            raise
        raise DistilleryError(
            f"{place}: {os.strerror(number)}: {_needed(num_bytes)}{_free(place)} bytes are free; "
            "free space and run again"
        ) from error


def _needed(num_bytes: int | Callable[[], int] | None) -> str:
    if num_bytes is None:
        return ""
    least = f"more than {num_bytes()}" if callable(num_bytes) else num_bytes
    return f"{least} bytes are needed, "


def _system_error(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, DistilleryError) or not (match := _SYSTEM_ERROR.search(str(error))):
        return None
    return int(match[1] or match[2])


def _free(path: Path) -> int:
    place = next((p for p in (path, *path.parents) if p.exists()), Path())
    return shutil.disk_usage(place).free


def count_bytes(path: Path) -> int:
    """Of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _replace(partial: Path, final: Path) -> None:
    """Put `partial` at `final`; what was there is at `partial` afterwards, or gone."""
    for tries_left in reversed(range(_MAX_TRIES)):
        is_plain = partial.is_file() and not (final.is_symlink() or final.is_dir())
        try:
            if is_plain or not os.path.lexists(final):
                partial.replace(final)
            else:
                _exchange(partial, final)
            return
        except OSError as error:  # another writer came between
            if not (error.errno in _OVERTAKEN and tries_left and partial.exists()):
                raise


def _exchange(partial: Path, final: Path) -> None:
    """Swap two names in one step, or in two where the system has no such call."""
    if (swap := _renameat2()) is not None:
        names = os.fsencode(partial), os.fsencode(final)
        if swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
            raise OSError(number, os.strerror(number), str(final))
    old = final.with_name(f".{final.name}.tmp-old-{_owner()}-{uuid.uuid4().hex[:8]}")
    final.rename(old)
    try:
        partial.rename(final)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(final)
        raise
    finally:
        _remove(old)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """The C library's call, which glibc has since 2.28."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None:
        call.argtypes = [
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint,
        ]
    return call


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _owner() -> str:
    """`<place>-<pid>-<start>` of this process; place: where a process id means something."""
    return f"{_place()}-{os.getpid()}-{_start(os.getpid()) or 0}"


@functools.cache
def _place() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot}{os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]
    return uuid.uuid4().hex[:8]  # nobody can be asked


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None if it has ended."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    return None


def _sweep(folder: Path) -> None:
    """Remove temporaries whose owners are dead; once a process in each folder."""
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if (match := _TEMPORARY.fullmatch(entry.name)) and _is_abandoned(entry, match):
                _remove(Path(entry.path))


def _is_abandoned(entry: os.DirEntry, match: re.Match) -> bool:
    if match["place"] == _place():
        return _start(int(match["pid"])) != int(match["start"])
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S
    except OSError:  # it is gone
        return False
