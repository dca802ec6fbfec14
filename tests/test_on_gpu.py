"""scripts/on_gpu.sh, as far as a CPU goes: all parts at tiny sizes, in one process."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from distillery.core.errors import DistilleryError

ROOT = Path(__file__).resolve().parent.parent
MAX_FILES = 8
KEPT = {"date": "2026-11-27", "device": "H100", "rows": {"elr": {"ms": 1.0}}}


def on_gpu(*words: object, path: Path, **changed: str) -> subprocess.CompletedProcess:
    """The script, with the folder of a `python` first in PATH."""
    return subprocess.run(
        ["scripts/on_gpu.sh", *map(str, words)], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **changed},
    )  # fmt: skip


def test_a_dry_run_writes_what_docs_results_takes(tmp_path: Path, python: Path):
    out = tmp_path / "out"
    process = on_gpu(out, "--dry", path=python, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert process.returncode == 0, process.stdout[-4000:]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= MAX_FILES
    records = {path.parent.name + path.name: json.loads(path.read_text())
               for path in files if path.suffix == ".json"}  # fmt: skip
    assert {"profile", "runtime"} == {path.parent.name for path in files if path.suffix == ".json"}
    rows = {name: row for record in records.values() for name, row in record["rows"].items()}
    assert {name: row["error"] for name, row in rows.items() if "error" in row} == {}
    assert rows["runtimes/eager again"]["equal"]
    assert {"chain/generate_unet unet/elr", "low_rank/eager/loop", "dense/reference",
            "whole student/b1/eager", "whole student/b2/kernels", "elr/b2/kernels",
            "inference/unet/dense"} <= set(rows)  # fmt: skip


def test_its_help_is_its_head(tmp_path: Path, python: Path):
    process = on_gpu(tmp_path / "out", "--help", path=python)
    lines = process.stdout.splitlines()
    assert process.returncode == 0
    assert lines[0].startswith("Everything worth knowing")
    assert lines[-1] == "written, where it can't begin."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "OUT: no folder"),
        (["--dry"], "OUT: no folder"),
        (["--dry", ""], "'': neither"),
        (["out", "--fry"], "'--fry': neither"),
        (["--dry", "out", "shards", "more"], "more: a third folder"),
        (["--dry", "file"], "file: is no folder"),
        (["--dry", "file/out"], "file/out: can't be made"),
        (["--dry", "taken"], "taken.work: is no folder"),
        (["--dry", "gone"], "gone: is no folder"),
        (["--dry", "a blank"], "a blank: letters, digits"),
        (["--dry", "out", "nowhere"], "nowhere: no folder with .tar shards"),
        (["out", "--dry", "empty"], "empty: no folder with .tar shards"),
        (["--dry", "out", "shards/0.tar"], "shards/0.tar: no folder with .tar shards"),
        (["--dry", "kept"], "profile/a.json: rows is not there"),
    ],
)
def test_where_it_cannot_begin_it_says_why_and_writes_nothing(
    tmp_path: Path, python: Path, words: list[str], said: str
):
    for folder in ("shards", "empty", "kept/profile"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("file", "taken.work", "shards/0.tar"):
        (tmp_path / file).touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "kept/profile/a.json").write_text('{"date": "x", "device": "y"}')
    before = sorted(tmp_path.rglob("*"))
    process = on_gpu(*(w if w[:1] in ("", "-") else tmp_path / w for w in words), path=python)
    assert process.returncode == 2
    assert said in process.stderr
    assert len((process.stdout + process.stderr).splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_does_not_begin(tmp_path: Path, python: Path):
    process = on_gpu(tmp_path / "out", path=python)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "no CUDA device here; --dry runs tiny sizes on the CPU\n"
    assert not list(tmp_path.iterdir())


def test_it_ends_with_1_and_names_what_did_not_finish_and_what_failed(tmp_path: Path):
    out, stub = tmp_path / "out", tmp_path / "bin/python"
    (out / "runtime").mkdir(parents=True)
    failing = {"rows": {"a": {"ms": 1.0}, "b": {"error": "OSError: no"}}}
    (out / "runtime/a.json").write_text(json.dumps({**KEPT, **failing}))
    stub.parent.mkdir()
    stub.write_text(
        f"""#!/bin/bash
case "$*" in
  *--failed*) exec {sys.executable} "$@" ;;
  *profile) exit 124 ;;
  *training) exit 1 ;;
esac
"""
    )
    stub.chmod(0o755)
    process = on_gpu(out, path=stub.parent)
    assert process.returncode == 1
    assert process.stdout.splitlines() == [
        "not finished: profile: its 120 s were up; run again to go on",
        "not finished: training: ended with 1, for the reason above; "
        "run again when it is put right",
        "failed rows: runtime/a.json: b",
    ]
    (out / "runtime/a.json").write_text(json.dumps(KEPT))
    assert on_gpu("--dry", out, path=stub.parent).returncode == 0


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the parts import from."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "scripts/gpu")
    monkeypatch.chdir(ROOT)
    return ROOT / "scripts/gpu"


@pytest.mark.parametrize(
    "text",
    [
        "{", "", "{}", "[]", '{"date": "x"}', json.dumps({**KEPT, "date": 5}),
        json.dumps({**KEPT, "rows": ["elr"]}), json.dumps({**KEPT, "rows": {"elr": 5}}),
        json.dumps({**KEPT, "failed": ["elr"]}),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_to_do(scripts: Path, tmp_path: Path, text: str):
    read_kept = importlib.import_module("kept").read_kept
    (tmp_path / "a.json").write_text(json.dumps(KEPT))
    assert read_kept(tmp_path / "a.json") == KEPT
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DistilleryError, match=r"a\.json: [^\n]+; delete it, and what"):
        read_kept(tmp_path / "a.json")


def test_what_a_profile_says_of_failed_rows_counts_too(scripts: Path, tmp_path: Path):
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/a.json").write_text(json.dumps({**KEPT, "failed": {"b": "no", "c": ""}}))
    assert importlib.import_module("kept").failed_rows(tmp_path) == ["profile/a.json: b, c"]


def test_a_path_is_one_word_of_a_command(scripts: Path):
    chain = importlib.import_module("chain")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["paths"]["raw"] = "o u/${t}/raw"
    ((command, outs),) = chain.commands("ingest", params, Path("p q.yaml"))
    assert command[1:] == ["--params", "p q.yaml", "--raw", "o u/${t}/raw"]
    assert outs == [Path("o u/${t}/raw")]


class Chain:
    """Three steps that write a file each, and one that compares."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done, self.failing = folder, [], ""

    def steps(self, step: type) -> list:
        names = ("a", "b", "c")
        found = [step(n, lambda n=n: self._make(n), [self.folder / n]) for n in names]
        return [*found, step("again", lambda: self._make("again"))]

    def _make(self, name: str) -> dict[str, float]:
        self.done.append(name)
        if name == self.failing:
            raise RuntimeError("no")
        (self.folder / name).touch()
        return {"seconds": len(self.done)}


def test_steps_whose_files_are_gone_are_made_again_and_stay_measured(scripts: Path, tmp_path: Path):
    stages, common = (importlib.import_module(name) for name in ("parts.stages", "common"))
    place = common.Place(tmp_path / "out", dry=True)
    made = Chain(tmp_path)

    def run() -> list[str]:
        made.done = []
        stages._chain(place.record("correctness"), made.steps(stages.Step))
        return made.done

    made.failing = "c"
    assert run() == ["a", "b", "c"]
    measured = place.record("correctness").values["rows"]
    made.failing = ""
    (tmp_path / "a").unlink()
    assert run() == ["a", "b", "c", "again"]  # b was made from the former a
    rows = place.record("correctness").values["rows"]
    assert {name: rows[name] for name in "ab"} == {name: measured[name] for name in "ab"}
    assert rows["c"] == {"seconds": 3}
    (tmp_path / "a").unlink()
    assert run() == []  # nothing is left that needs it


def test_stages_are_left_out_and_have_not_failed_where_a_package_is_missing(
    scripts: Path, tmp_path: Path, monkeypatch, capsys
):
    stages, common = (importlib.import_module(name) for name in ("parts.stages", "common"))
    monkeypatch.setattr(stages, "PACKAGES", ("pydantic", "no_such_package"))
    monkeypatch.setattr(stages, "_steps", None)
    place = common.Place(tmp_path / "out", dry=True)
    stages.run(place)
    assert capsys.readouterr().out == "no_such_package: not installed; the stages are left out\n"
    rows = place.record("correctness").values["rows"]
    assert rows == {"chain/packages": {"missing": ["no_such_package"]}}


@pytest.fixture
def profile_part(scripts: Path, monkeypatch: pytest.MonkeyPatch):
    """The module of the part, whose rows take no time."""
    from parts import profile

    monkeypatch.setattr(profile, "_plan", lambda place, preset: Path("plan.json"))
    return profile


class Profiled:
    """Stands in for `distillery profile`: rows of one number each, in its order, some fail."""

    def __init__(self, failing: tuple[str, ...] = (), ends_at: str | None = None) -> None:
        self.failing, self.ends_at, self.asked = failing, ends_at, []

    def __call__(
        self, preset, rows, *, on_rows, dtype, batch_size=1, checkpointing=False, **options
    ):
        settings = {"preset": preset, "resolution_px": 512, "dtype": dtype}
        settings |= {"checkpointing": True} if checkpointing else {}
        found = {}
        for name in rows.split(","):
            self.asked.append((preset, dtype, batch_size, name, checkpointing))
            if name == self.ends_at:
                raise KeyboardInterrupt
            if name in self.failing:
                raise RuntimeError(f"{name} fails")
            found[name] = {"batches": {}, "of": batch_size}
            on_rows({"date": "2026-11-27", "device": "H100", "rows": dict(found),
                     "settings": {**settings, "batch_size": batch_size}})  # fmt: skip


def run_profile(
    part, out: Path, monkeypatch, profiled: Profiled, dry: bool = False
) -> dict[str, dict]:
    monkeypatch.setattr(part, "profile", profiled)
    monkeypatch.setattr(part, "device_name", lambda device: "H100")
    monkeypatch.setattr(part, "ratios", lambda rows: {"of": len(rows)})
    place = SimpleNamespace(
        dry=dry, out=out, work=out.with_name("out.work"), device=SimpleNamespace(type="cuda")
    )
    with (
        contextlib.suppress(KeyboardInterrupt)
        if not profiled.failing
        else pytest.raises(DistilleryError, match=": failed, for the reasons above")
    ):
        part.run(place)
    return {path.name: json.loads(path.read_text()) for path in (out / "profile").glob("*")}


def test_each_profile_has_a_file_and_a_row_that_fails_stops_no_other(
    profile_part, tmp_path: Path, monkeypatch
):
    profiled = Profiled(failing=("elr",))
    files = run_profile(profile_part, tmp_path / "out", monkeypatch, profiled)
    assert len(files) == 5  # with three of the other parts as many as may come back
    eight = files["2026-11-27-profile-sd15-h100-batch8-bf16.json"]
    assert set(eight["rows"]) == set(profile_part.TRAINING.split(",")) - {"elr"}
    assert {row["of"] for row in eight["rows"].values()} == {8}
    assert eight["failed"] == {"elr": "RuntimeError: elr fails"}
    assert files["2026-11-27-profile-sd15-h100-bf16.json"]["rows"]["elr_dense"]["of"] == 1
    recomputed = files["2026-11-27-profile-sd15-h100-batch8-bf16-checkpointing.json"]
    assert set(recomputed["rows"]) == {"uni_controlnet"}


def test_a_dry_profile_that_fails_is_no_success(profile_part, tmp_path: Path, monkeypatch):
    profiled = Profiled(failing=("inference/unet/dense",))
    assert run_profile(profile_part, tmp_path / "out", monkeypatch, profiled, dry=True) == {}


def test_a_profile_that_is_cut_off_keeps_its_rows_and_goes_on(
    profile_part, tmp_path: Path, monkeypatch
):
    out = tmp_path / "out"
    cut = Profiled(ends_at="elr_dense")
    (name,) = set(run_profile(profile_part, out, monkeypatch, cut)) - {
        "2026-11-27-profile-sd15-h100-fp16.json"
    }
    assert set(json.loads((out / "profile" / name).read_text())["rows"]) == {
        "uni_controlnet",
        "elr",
        "elr_aligned",
    }
    again = Profiled()
    assert len(run_profile(profile_part, out, monkeypatch, again)) == 5
    asked = set(cut.asked) & set(again.asked)
    assert asked == {("sd15", "bf16", 8, "elr_dense", False)}


def test_what_is_predicted_beforehand_is_what_the_files_ask_for(
    profile_part, tmp_path: Path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        profile_part, "profile", lambda preset, rows, **told: asked.append((preset, rows, told))
    )
    for number in range(len(profile_part.FILES)):
        profile_part.predict(SimpleNamespace(work=tmp_path), number)
    assert {(preset, told["dtype"]) for preset, _, told in asked} == {
        ("sd15", "fp16"), ("sd15", "bf16"), ("sd21", "fp16"),
    }  # fmt: skip
    assert all(told["num_repeats"] == 0 and told["device"] == "cpu" for *_, told in asked)
    assert asked[1][2]["plan"] == Path("plan.json")


def test_a_prediction_needs_no_part(profile_part, tmp_path: Path, monkeypatch):
    run, asked = importlib.import_module("run"), []
    monkeypatch.setattr(profile_part, "predict", lambda place, number: asked.append(number))
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path), "--predict", "3"])
    assert (run.main(), asked) == (0, [3])


def test_the_script_starts_as_many_predictions_as_there_are_files(profile_part):
    script = (ROOT / "scripts/on_gpu.sh").read_text()
    numbers = " ".join(str(number) for number in range(len(profile_part.FILES)))
    assert f"for file in {numbers}; do" in script
