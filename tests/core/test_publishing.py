"""Publishing is all or nothing, at every moment, and a full disk is one line."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from test_artifacts import write

from distillery.core import artifacts, publishing
from distillery.core.errors import DistilleryError


def _fail_half_way(final: Path, error: Exception) -> None:
    with publishing.publish(final) as partial:
        partial.mkdir()
        (partial / "data.txt").write_text("half")
        raise error


def test_failure_leaves_the_old_version(tmp_path: Path) -> None:
    final = tmp_path / "out"
    write(final, "a", "old")
    with pytest.raises(RuntimeError):
        _fail_half_way(final, RuntimeError())
    assert (final / "data.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_success_replaces_the_old_version(tmp_path: Path) -> None:
    final = write(tmp_path / "out", "a", "old")
    write(final, "a", "new")
    assert (final / "data.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_mapped_file_is_replaced_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        with publishing.publish(path) as partial:
            partial.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_devices_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path / "link", Path("/dev/stdout"), Path("/dev/mine")):
        with pytest.raises(DistilleryError, match="no place for a file or folder"):
            _fail_half_way(place, AssertionError("it is written to"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("make", [Path.write_text, None])
def test_symbolic_link_is_replaced_not_followed(tmp_path: Path, make: object) -> None:
    shared = tmp_path / "shared"
    final = tmp_path / "out"
    if make:
        shared.write_text("shared")
    else:
        write(shared, "a", "shared")
    final.symlink_to(shared)
    with publishing.publish(final) as partial:
        partial.write_text("mine")
    assert not final.is_symlink()
    assert (shared if make else shared / "data.txt").read_text() == "shared"


def test_kill_leaves_nothing_at_the_final_name(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from distillery.core.publishing import publish
        with publish(Path(sys.argv[1])) as partial:
            partial.mkdir()
            (partial / "data.txt").write_text("half")
            print("written", flush=True)
            time.sleep(60)
    """)
    final = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(final)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(artifacts.__file__).parents[2])},
    )
    assert child.stdout.readline() == b"written\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not final.exists()
    write(final, "a", "whole")
    assert artifacts.verify(final) == []
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # the dead one's temporary is gone


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(DistilleryError, match="out: No space left on device: more than 4 bytes"):
        _fail_half_way(final, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_really_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes write() itself fail, as a full disk or a quota does."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from distillery.core.publishing import publish
        from distillery.core.errors import DistilleryError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with publish(Path(sys.argv[1])) as partial:
                partial.write_bytes(b"x" * 8192)
        except DistilleryError as error:
            print(error)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(artifacts.__file__).parents[2])},
    )  # fmt: skip
    assert "out: File too large: more than 4096 bytes are needed, " in done.stdout
    assert " bytes are free; free space and run again" in done.stdout
    assert list(tmp_path.iterdir()) == []


ERRORS = {
    "full": (OSError(errno.ENOSPC, "x"), "out: No space left on device: 9 bytes are needed, "),
    "quota": (OSError(errno.EDQUOT, "x"), "out: Disk quota exceeded: 9 bytes are needed, "),
    "read-only": (OSError(errno.EROFS, "x", "/data/f"), "/data/f: Read-only file system; make it"),
    "safetensors": (
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "out: No space left on device: 9 bytes are needed, ",
    ),
    "older safetensors": (
        RuntimeError('IoError(Os { code: 122, kind: FilesystemQuotaExceeded, message: "" })'),
        "out: Disk quota exceeded: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "line"), ERRORS.values(), ids=ERRORS)
def test_what_the_system_says_of_room_is_one_line(
    tmp_path: Path, error: Exception, line: str
) -> None:
    with (
        pytest.raises(DistilleryError, match=rf"{line}") as raised,
        publishing.room_for(tmp_path / "out", 9),
    ):
        raise error
    assert "\n" not in str(raised.value)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (PermissionError(errno.EACCES, "x", "/elsewhere/input"), ValueError("code: 28x")):
        with pytest.raises(type(error)), publishing.room_for(tmp_path / "out"):
            raise error


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, "x", str(tmp_path / ".out.tmp-1/file"))
    with pytest.raises(DistilleryError, match="Permission denied; make it readable and writ"):
        _fail_half_way(tmp_path / "out", denied)


def test_errors_name_what_was_to_be_made(tmp_path: Path) -> None:
    with (
        pytest.raises(DistilleryError, match=rf"^{tmp_path}/out/unet: no such layer"),
        publishing.publish(tmp_path / "out") as partial,
    ):
        raise DistilleryError(f"{partial / 'unet'}: no such layer; name another")


def test_temporaries_of_the_dead_are_swept_and_no_others(tmp_path: Path) -> None:
    place, start = publishing._place(), publishing._start(os.getpid())
    alive = f".a.tmp-{place}-{os.getpid()}-{start}-12345678"
    dead = [f".a.tmp-{place}-{os.getpid()}-{start + 1}-12345678", f".b.tmp-old-{place}-{2**22}-7-1"]
    far, old = ".a.tmp-00000000-1-1-12345678", [".raw.tmp-1234abcd", ".raw.tmp-old-1234abcd"]
    others = [".a", "a.tmp-1234abcd", ".gitignore"]
    for name in (alive, *dead, far, *old, *others):
        (tmp_path / name).mkdir()
    for name in old:
        os.utime(tmp_path / name, (0, time.time() - publishing._ABANDONED_S - 9))
    write(tmp_path / "out", "a", "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive, far, *others, "out"])


def test_a_name_that_comes_and_goes_is_no_device(tmp_path: Path) -> None:
    final, away = write(tmp_path / "out", "a", "0"), tmp_path / "away"

    def come_and_go() -> None:
        for _ in range(2000):
            final.rename(away)
            away.rename(final)

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(come_and_go)
        while not moving.done():
            publishing._require_replaceable(final)
        moving.result()


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_folder_is_replaced_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_exchange: bool
) -> None:
    """Four writers, four readers: nothing fails; with the system's call nothing is missed."""
    if not has_exchange:
        monkeypatch.setattr(publishing, "_renameat2", lambda: None)
    final = write(tmp_path / "out", "a", "0")
    is_over, missed = threading.Event(), []

    def read() -> None:
        while not is_over.is_set():
            try:
                assert (final / "data.txt").read_text().isdigit()
            except FileNotFoundError as error:
                missed.append(error)

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        writers = [
            pool.submit(lambda w=w: [write(final, "a", str(n)) for n in range(8 * w, 8 * w + 8)])
            for w in range(4)
        ]
        wait(writers)
        is_over.set()
        for writer in writers:
            writer.result()
        for reader in readers:
            reader.result()
    assert artifacts.verify(final) == []
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not (has_exchange and missed)
