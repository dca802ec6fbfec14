"""Damaged weights are named before they are used, and are not read more often than needed."""

import os
import shutil
from pathlib import Path

import pytest

from distillery.core import artifacts, weights
from distillery.core.errors import DamagedError, DistilleryError

NAME = "unet/model.safetensors"


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artefact of a network and other files; nothing of it was looked at."""
    monkeypatch.setattr(weights, "_known", {})
    monkeypatch.setattr(weights, "_memory", [])
    folder = tmp_path / "teacher"
    (folder / "unet").mkdir(parents=True)
    (folder / NAME).write_bytes(bytes(range(256)) * 2**13)
    (folder / "unet/config.json").write_text('{"a": 1}')
    (folder / "picture.png").write_bytes(b"png")
    artifacts.write_manifest(folder, "prepare_teacher", {}, {})
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read through."""
    names: list[str] = []
    hash_file = weights.hash_file
    monkeypatch.setattr(weights, "hash_file", lambda f: names.append(f.name) or hash_file(f))
    return names


def flip(file: Path, place: int = -7) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("name", [NAME, "unet/config.json"])
def test_a_flipped_bit_is_one_line(teacher: Path, name: str) -> None:
    weights.require_recorded(teacher / "unet")
    flip(teacher / name)
    with pytest.raises(DamagedError) as raised:
        weights.require_recorded(teacher / "unet")
    assert str(raised.value) == (
        f"{teacher / name}: damaged, its bytes are not those that prepare_teacher wrote; get it "
        f"again, or delete {teacher} and run again, which makes it anew"
    )


def test_a_missing_file_and_a_changed_manifest_are_named(teacher: Path) -> None:
    (teacher / "unet/config.json").unlink()
    with pytest.raises(DamagedError, match=r"config.json: missing"):
        weights.require_recorded(teacher / "unet")
    manifest = teacher / "manifest.json"
    manifest.write_text(manifest.read_text().replace("unet/config", "unet/xonfig"))
    with pytest.raises(DamagedError, match=r"manifest.json: damaged"):
        weights.require_recorded(teacher / "unet")


def test_what_is_not_loaded_is_not_read(teacher: Path, hashed: list[str]) -> None:
    weights.require_recorded(teacher / NAME)
    assert hashed == ["model.safetensors"]
    flip(teacher / "picture.png", 0)
    weights.require_recorded(teacher)
    assert hashed == ["model.safetensors"]


def test_a_good_file_is_read_once_and_the_next_process_knows(
    teacher: Path, hashed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.remember_in(tmp_path / "work/checked")
    for _ in range(2):
        weights.require_recorded(teacher / "unet")
        monkeypatch.setattr(weights, "_known", {})  # as in a new process
    assert sorted(hashed) == ["config.json", "config.json", "model.safetensors"]
    os.utime(teacher / NAME)
    weights.require_recorded(teacher / "unet")
    assert hashed.count("model.safetensors") == 2


def test_a_flip_with_the_old_time_is_found(teacher: Path, tmp_path: Path) -> None:
    weights.remember_in(tmp_path / "checked")
    weights.require_recorded(teacher / "unet")
    times = os.stat(teacher / NAME)
    flip(teacher / NAME)
    os.utime(teacher / NAME, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DamagedError):
        weights.require_recorded(teacher / "unet")


@pytest.mark.parametrize(
    "text", ['{"name": "of another program"}', '{"files": ["a.js"]}', "[]", "null", "1", None]
)
def test_folders_without_a_record_pass(teacher: Path, tmp_path: Path, text: str | None) -> None:
    shutil.copytree(teacher / "unet", tmp_path / "own")
    manifest = tmp_path / "own/manifest.json"
    manifest.mkdir() if text is None else manifest.write_text(text)
    weights.require_recorded(tmp_path / "own")


@pytest.mark.parametrize("size", [0, 1, 100, -2])
@pytest.mark.parametrize("place", ["", "unet", NAME])
def test_a_cut_manifest_is_named(teacher: Path, size: int, place: str) -> None:
    manifest = teacher / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:size])
    with pytest.raises(DamagedError, match=r"manifest.json: no JSON .*or delete .*/teacher and"):
        weights.require_recorded(teacher / place)


def test_every_flipped_bit_of_a_manifest_is_named(teacher: Path) -> None:
    manifest = teacher / "manifest.json"
    whole = manifest.read_bytes()
    for place in (whole.index(b'"files"') + 2, whole.index(b'"ancestors"') + 2, 0, 5, -3):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            manifest.write_bytes(data)
            with pytest.raises(DamagedError, match=r"manifest.json: "):
                weights.require_recorded(teacher / "unet")


def test_tensors_that_were_filled_at_random_are_named() -> None:
    info = {"missing_keys": {"b", "a"}, "unexpected_keys": ["x"]}
    with pytest.raises(DistilleryError, match="here: 2 tensors are missing: a, b; "):
        weights.require_matched("here", info, may_hold_more=True)
    weights.require_matched("here", {**info, "missing_keys": []}, may_hold_more=True)
    with pytest.raises(DistilleryError, match="1 tensors are unexpected: x"):
        weights.require_matched("here", {**info, "missing_keys": []}, may_hold_more=False)
