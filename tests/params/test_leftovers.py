"""What the params no longer name is no part of a run, and stays where it is."""

import os
import shutil
from pathlib import Path

import pytest

from distillery.cli import main
from distillery.commands import plan
from distillery.core.artifacts import content_of, write_json, write_manifest
from distillery.core.errors import DistilleryError
from distillery.core.run import Run
from distillery.params import Params, load_params
from distillery.params.leftovers import leftovers, shown
from distillery.stage import In, Out, stage

ROOT = Path(__file__).resolve().parents[2]
NAMED = ("models/unet/elr", "models/control/elr", "models/init/svd", "models/init/random",
         "data/teacher_cache/base/0", "data/curated/1", "data/conditions/0",
         "samples/teacher/guided", "samples/teacher/control_canny_offset", "samples/whole/student",
         "metrics/unet/elr.json", "metrics/profile.json")  # fmt: skip
GONE = ("data/curated/7", "data/conditions/7", "data/teacher_cache/control_mask",
        "data/teacher_cache/base/7", "models/init/old_plan", "models/unet/mine",
        "models/control/mine", "models/controlnet/mine", "models/guidance/mine",
        "samples/teacher/control_mask", "samples/unet/mine", "samples/whole/mine",
        "metrics/unet/mine.json", "metrics/whole/mine.json")  # fmt: skip


def _make(name: str, teacher: str) -> None:
    path = Path(name)
    if path.suffix:
        write_json(path, {"from": teacher})
        return
    path.mkdir(parents=True)
    (path / "text").write_text(teacher)
    write_manifest(path, name, {}, {"prepare_teacher": teacher * 8})


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A finished run, of another teacher than what earlier ones left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distillery.stage.current_code", lambda verb: _Code())
    shutil.copy(ROOT / "params.yaml", ".")
    for name in NAMED:
        _make(name, "new")
    return load_params(Path("params.yaml"))


class _Code:
    total, libraries = "0", ()


@stage(reads=["seed"])
def gather(params: Params, run: Run, models: In, metrics: In, base: In, out: Out) -> None:
    """Lists what it sees."""
    seen = [models.glob("*/*"), metrics.rglob("*.json"), base.glob("*")]
    out.write_text("\n".join(sorted(f"{p.parent.name}/{p.name}" for ps in seen for p in ps)))
    run.work.joinpath("content").write_text(content_of(models) + content_of(metrics))
    if (models / "unet/elr/fail").exists():
        raise DistilleryError(f"{models / 'unet/elr/fail'}: damaged; delete {models / 'unet/elr'}")


def _gather(params: Params, root: Path = Path()) -> tuple[str, str, str]:
    folders = {"models": "models", "metrics": "metrics", "base": "data/teacher_cache/base"}
    gather(params, **{name: root / path for name, path in folders.items()}, out=Path("out"))
    (content,) = Path("work").glob("gather/*/content")
    record = Path("work/runs/gather.json").read_text().split('"fingerprint": ')[1].split(",")[0]
    return Path("out").read_text(), content.read_text(), record


def test_what_the_params_do_not_name_is_left_over(params: Params) -> None:
    assert leftovers(params) == []
    for name in GONE:
        _make(name, "old")
    Path("models/unet/.elr.tmp-1").mkdir()  # a stage is at work
    Path("models/unet/.gitignore").touch()
    assert {str(path) for path in leftovers(params)} == set(GONE)


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_stage_sees_what_the_params_name(
    params: Params, capsys: pytest.CaptureFixture, is_absolute: bool
) -> None:
    clean = _gather(params)
    assert "leaves out" not in capsys.readouterr().err
    for name in GONE:
        _make(name, "old")
    root = Path.cwd() if is_absolute else Path()
    assert _gather(params, root) == clean  # and so has the same fingerprint
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "leaves out" in line]
    assert "models/unet/mine" in said
    assert "samples/unet/mine" not in said  # not asked for
    assert all(Path(name).exists() for name in GONE)


def test_an_error_names_the_folder_itself(params: Params) -> None:
    _make("models/unet/mine", "old")
    Path("models/unet/elr/fail").touch()
    with pytest.raises(DistilleryError, match=r"^models/unet/elr/fail: .* delete models/unet/elr$"):
        _gather(params)


def test_plan_lists_leftovers(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(plan, "resolve_jobs", lambda targets=("all",): [])
    for name in ("models/unet/mine", "metrics/unet/mine.json"):
        _make(name, "old")
    with pytest.raises(SystemExit):
        main(["plan"])
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        "2 results of names that the params do not have: no part of the run; delete with "
        "rm -r models/unet/mine metrics/unet/mine.json"
    )


def test_links_are_places_of_their_own(params: Params, tmp_path: Path) -> None:
    """A link to a model is not that model; a model on another disk is still left over."""
    before = _gather(params)
    shutil.rmtree("work")
    _make("elsewhere/mine", "old")
    Path("models/unet/mine").symlink_to(tmp_path / "elsewhere/mine")
    Path("models/unet/linked").symlink_to("elr")
    Path("models/unet/loop").symlink_to("loop")
    Path("models/control").rename("elsewhere/control")
    Path("models/control").symlink_to(tmp_path / "elsewhere/control")
    _make("models/control/mine", "old")
    _make("metrics/control/mine.json", "old")
    for name in "ab":  # a walk that follows them never ends
        Path("models/unet/mine", name).symlink_to("..")
    names = {path.name for path in leftovers(params)}
    assert names == {"mine", "mine.json", "linked", "loop"}
    assert _gather(params) == before


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", "caf\u00e9".encode()])
def test_odd_names_are_shown_on_one_line(params: Params, capsys, name: bytes) -> None:
    with open(b"models/unet/" + name, "w"):
        pass
    _gather(params)
    said = [line for line in capsys.readouterr().err.splitlines() if "leaves out" in line]
    assert len(said) == 1
    assert shown(Path("models/unet", os.fsdecode(name))) in said[0]
    plan.left_over(params).encode()


def test_what_the_params_name_elsewhere_is_never_left_over(params: Params) -> None:
    for name in ("models/unet/init/svd", "models/guidance/work/deep"):
        _make(name, "new")
    paths = {"init": "models/unet/init", "work": "models/guidance/work/deep"}
    own = params.model_copy(update={"paths": params.paths.model_copy(update=paths)})
    assert leftovers(own) == []
