"""Publishing is all or nothing, and a manifest names every damaged file."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from distillery.core import artifacts
from distillery.core.errors import DamagedError, DistilleryError


def _artifact(folder: Path, label: str, text: str, ancestors: dict | None = None) -> Path:
    with artifacts.publish(folder) as partial:
        partial.mkdir()
        (partial / "data.txt").write_text(text)
        artifacts.write_manifest(partial, label, {"stage": label}, ancestors or {})
    return folder


def _fail_half_way(final: Path, error: Exception) -> None:
    with artifacts.publish(final) as partial:
        partial.mkdir()
        (partial / "data.txt").write_text("half")
        raise error


def _content(folder: Path) -> str:
    return artifacts.read_manifest(folder)["content"]


def test_failure_leaves_the_old_version(tmp_path: Path) -> None:
    final = tmp_path / "out"
    _artifact(final, "a", "old")
    with pytest.raises(RuntimeError):
        _fail_half_way(final, RuntimeError())
    assert (final / "data.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_success_replaces_the_old_version(tmp_path: Path) -> None:
    final = _artifact(tmp_path / "out", "a", "old")
    _artifact(final, "a", "new")
    assert (final / "data.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_mapped_file_is_replaced_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        with artifacts.publish(path) as partial:
            partial.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("make", [Path.write_text, None])
def test_symbolic_link_is_replaced_not_followed(tmp_path: Path, make: object) -> None:
    shared = tmp_path / "shared"
    final = tmp_path / "out"
    if make:
        shared.write_text("shared")
    else:
        _artifact(shared, "a", "shared")
    final.symlink_to(shared)
    with artifacts.publish(final) as partial:
        partial.write_text("mine")
    assert not final.is_symlink()
    assert (shared if make else shared / "data.txt").read_text() == "shared"


def test_kill_leaves_nothing_at_the_final_name(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from distillery.core.artifacts import publish
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
    _artifact(final, "a", "whole")
    assert artifacts.verify(final) == []


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(DistilleryError, match="No space left on device; free space"):
        _fail_half_way(final, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert list(tmp_path.iterdir()) == []


def test_really_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes write() itself fail, as a full disk or a quota does."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from distillery.core.artifacts import publish
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
    assert "File too large; free space and run again" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_verify_names_damage(tmp_path: Path) -> None:
    folder = _artifact(tmp_path / "out", "a", "text")
    assert artifacts.verify(tmp_path) == []
    (folder / "data.txt").write_text("tex\x75")
    (folder / "extra").touch()
    assert artifacts.verify(tmp_path) == [
        f"{folder}/extra: not in the manifest",
        f"{folder}/data.txt: bytes do not match the recorded sha256",
    ]
    (folder / "data.txt").unlink()
    assert f"{folder}/data.txt: missing" in artifacts.verify(tmp_path)


def test_verify_needs_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=r"no manifest.json here or below"):
        artifacts.verify(tmp_path)
    with pytest.raises(DistilleryError, match="not found"):
        artifacts.verify(tmp_path / "nothing")


def test_front_ends_files_do_not_count(tmp_path: Path) -> None:
    folder = _artifact(tmp_path / "out", "a", "text")
    (folder / ".snakemake_timestamp").touch()
    assert artifacts.verify(folder) == []


def test_content_depends_on_bytes_alone(tmp_path: Path) -> None:
    first = _artifact(tmp_path / "1", "a", "same")
    time.sleep(0.01)
    second = _artifact(tmp_path / "elsewhere" / "2", "b", "same")
    other = _artifact(tmp_path / "3", "a", "other")
    assert _content(first) == _content(second) != _content(other)
    assert (first / "manifest.json").read_bytes() != (other / "manifest.json").read_bytes()
    shutil.rmtree(first)
    again = _artifact(first, "a", "same")
    assert artifacts.content_of(again) == _content(second)


def test_conflicting_ancestors_are_refused(tmp_path: Path) -> None:
    old = _artifact(tmp_path / "teacher", "prepare_teacher", "old")
    cache = _artifact(tmp_path / "cache", "cache", "x", {"prepare_teacher": _content(old)})
    artifacts.merge_ancestors({"teacher": old, "cache": cache})
    new = _artifact(old, "prepare_teacher", "new")
    with pytest.raises(DistilleryError, match=r"cache: made from prepare_teacher .* but .*teacher"):
        artifacts.merge_ancestors({"teacher": new, "cache": cache})


def test_unknown_schema_is_refused(tmp_path: Path) -> None:
    folder = _artifact(tmp_path / "out", "a", "text")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(DistilleryError, match="schema 99"):
        artifacts.read_manifest(folder)
    manifest.write_text("{")
    with pytest.raises(DamagedError, match="not valid JSON"):
        artifacts.read_manifest(folder)
