"""`student.json`: the same wherever a project lies, and a base that moved or changed is noticed."""

import shutil
from pathlib import Path

import pytest

from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.families.description import (
    STUDENT,
    Description,
    Sampling,
    base_of,
    read_description,
    write_description,
)


def _project(root: Path) -> Path:
    """A teacher and a described student of it; the student's folder."""
    write_json(root / "models/teacher/unet/config.json", {"size": 1})
    student = root / "models/guidance/mine"
    student.mkdir(parents=True)
    bases = {"teacher": base_of(root / "models/teacher", student)}
    told = Sampling(1, [2.0, 5.0], True)
    write_description(student, Description("guidance", "mine", bases, ["canny"], told))
    return student


def test_what_is_written_is_read_and_holds_no_place(tmp_path: Path):
    one, two = (_project(tmp_path / name) for name in ("one", "two"))
    assert (one / STUDENT).read_bytes() == (two / STUDENT).read_bytes()
    assert str(tmp_path) not in (one / STUDENT).read_text()
    found = read_description(one)
    assert found.name == "guidance/mine"
    assert found.sampling == Sampling(1, [2.0, 5.0], True)
    assert found.bases(one) == {"teacher": tmp_path / "one/models/teacher"}


def test_a_project_that_moves_as_a_whole_is_complete(tmp_path: Path):
    _project(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    student = tmp_path / "there/models/guidance/mine"
    assert read_description(student).bases(student)["teacher"].is_dir()


def test_a_base_that_moved_or_changed_is_one_line(tmp_path: Path):
    student = _project(tmp_path)
    alone = tmp_path / "mine"
    shutil.copytree(student, alone)
    with pytest.raises(DistilleryError, match=r"its teacher is not at .*; move both together"):
        read_description(alone).bases(alone)
    write_json(tmp_path / "models/teacher/unet/config.json", {"size": 2})
    with pytest.raises(DistilleryError, match=r"its teacher .* is another one than it was trained"):
        read_description(student).bases(student)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schema": 0}, "of another version"),
        ({"schema": 1, "builds_on": {}, "sampling": {}, "more": 1}, "not a model's description"),
        ({"schema": 1, "builds_on": {}}, "not a model's description"),
    ],
)
def test_what_is_no_description_is_said(values: dict, said: str, tmp_path: Path):
    with pytest.raises(DistilleryError, match=r"student\.json: not found; give the folder"):
        read_description(tmp_path)
    write_json(tmp_path / STUDENT, values)
    with pytest.raises(DistilleryError, match=said):
        read_description(tmp_path)
