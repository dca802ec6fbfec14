"""Publishing is all or nothing, and a manifest names every damaged file."""

import shutil
import time
from pathlib import Path

import pytest

from distillery.core import artifacts, publishing
from distillery.core.errors import DamagedError, DistilleryError


def write(folder: Path, label: str, text: str, ancestors: dict | None = None) -> Path:
    with publishing.publish(folder) as partial:
        partial.mkdir()
        (partial / "data.txt").write_text(text)
        artifacts.write_manifest(partial, label, {"stage": label}, ancestors or {})
    return folder


def _content(folder: Path) -> str:
    return artifacts.read_manifest(folder)["content"]


def test_verify_names_damage(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", "a", "text")
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
    folder = write(tmp_path / "out", "a", "text")
    (folder / ".snakemake_timestamp").touch()
    assert artifacts.verify(folder) == []


def test_content_depends_on_bytes_alone(tmp_path: Path) -> None:
    first = write(tmp_path / "1", "a", "same")
    time.sleep(0.01)
    second = write(tmp_path / "elsewhere" / "2", "b", "same")
    other = write(tmp_path / "3", "a", "other")
    assert _content(first) == _content(second) != _content(other)
    assert (first / "manifest.json").read_bytes() != (other / "manifest.json").read_bytes()
    shutil.rmtree(first)
    again = write(first, "a", "same")
    assert artifacts.content_of(again) == _content(second)


def test_links_upward_are_not_walked(tmp_path: Path) -> None:
    """Two of them make a walk that follows links double at every level, and never end."""
    elsewhere = write(tmp_path / "disk/moved", "a", "text").parent
    models = tmp_path / "models"
    write(models / "unet/own", "b", "own")
    (models / "unet/linked").symlink_to(elsewhere / "moved")
    (models / "control").symlink_to(elsewhere)
    before = artifacts.content_of(models)
    (models / "mine").mkdir()
    for name in "abc":
        (models / "mine" / name).symlink_to("..")
        (elsewhere / name).symlink_to(models)
    assert artifacts.content_of(models) == before
    found = [path.relative_to(models).as_posix() for path in artifacts.find_artifacts(models)]
    assert found == ["control/moved", "unet/linked", "unet/own"]


def test_conflicting_ancestors_are_refused(tmp_path: Path) -> None:
    old = write(tmp_path / "teacher", "prepare_teacher", "old")
    cache = write(tmp_path / "cache", "cache", "x", {"prepare_teacher": _content(old)})
    artifacts.merge_ancestors({"teacher": old, "cache": cache})
    new = write(old, "prepare_teacher", "new")
    with pytest.raises(DistilleryError, match=r"cache: made from prepare_teacher .* but .*teacher"):
        artifacts.merge_ancestors({"teacher": new, "cache": cache})


def test_unknown_schema_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", "a", "text")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(DistilleryError, match="schema 99"):
        artifacts.read_manifest(folder)
    manifest.write_text("{")
    with pytest.raises(DamagedError, match="not valid JSON"):
        artifacts.read_manifest(folder)
    manifest.write_text("[]")
    with pytest.raises(DamagedError, match="no mapping"):
        artifacts.read_manifest(folder)
    with pytest.raises(DistilleryError, match="Is a directory; rerun"):
        artifacts.read_json(folder)
