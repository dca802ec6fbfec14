"""A typed function becomes a command that publishes all or nothing and reads what it declares."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distillery.core.artifacts import read_manifest, verify
from distillery.core.code.reach import Code
from distillery.core.errors import DistilleryError
from distillery.core.log import log_path
from distillery.core.run import Run, read_run
from distillery.params import Params, load_params
from distillery.stage import In, Out, stage

ROOT = Path(__file__).resolve().parent.parent


@stage(reads=["seed", "curate"])
def copy_it(params: Params, run: Run, part: int, source: In, out: Out) -> None:
    """Copy a folder."""
    out.mkdir()
    (out / "text").write_text(f"{part} {params.seed} {(source / 'text').read_text()}")


@stage(reads=["seed"])
def peek(params: Params, run: Run, out: Out) -> None:
    """Read a section that was not declared."""
    out.write_text(str(params.curate))


@stage(
    reads=["curate.min_side_px", "distill_unet.variants.{variant}"], unrecorded=["data.parts"]
)  # fmt: skip
def peek_deeper(params: Params, run: Run, variant: str, key: str, out: Out) -> None:
    """Read a declared key, an unrecorded one, and the one that is asked for."""
    value: Any = params
    for name in key.split("."):
        value = value[name] if name in ("elr", "svd_only") else getattr(value, name)
    out.write_text(f"{value} {params.curate.min_side_px} {params.data.parts}")


@stage(reads=["seed"])
def fail(params: Params, run: Run, out: Out) -> None:
    """Fail half-way."""
    out.mkdir()
    (out / "text").write_text("half")
    raise DistilleryError("half.tar: cut short; download it again")


@stage(reads=["seed"])
def join(params: Params, run: Run, left: In, right: In, out: Out) -> None:
    """Two inputs that must fit together."""
    out.mkdir()


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distillery.stage.current_code", lambda verb: Code({}, ()))  # no file
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "text").write_text("hello")
    return load_params(Path("params.yaml"))


def _copy(params: Params, part: int, source: str, out: str) -> dict:
    copy_it(params, part=part, source=Path(source), out=Path(out))
    return read_manifest(Path(out))


def test_output_manifest_and_record(params: Params) -> None:
    manifest = _copy(params, 0, "source", "made/0")
    assert Path("made/0/text").read_text() == "0 0 hello"
    assert manifest["label"] == "copy_it/0"
    assert set(manifest["recipe"]["params"]) == {"seed", "curate"}
    assert verify(Path("made")) == []
    record = read_run(Path("work"), "copy_it/0")
    assert record["bytes"] > 0
    assert record["fingerprint"] == manifest["fingerprint"]


def test_equal_runs_make_equal_bytes(params: Params) -> None:
    _copy(params, 0, "source", "a")
    _copy(params, 0, "source", "b")
    assert Path("a/manifest.json").read_bytes() == Path("b/manifest.json").read_bytes()


def test_fingerprint_follows_input_params_and_selector(params: Params) -> None:
    first = _copy(params, 0, "source", "out")["fingerprint"]
    other_seed = params.model_copy(update={"seed": 1})
    other_report = params.model_copy(
        update={"report": params.report.model_copy(update={"title": "x"})}
    )
    assert _copy(other_report, 0, "source", "out")["fingerprint"] == first
    assert _copy(other_seed, 0, "source", "out")["fingerprint"] != first
    assert _copy(params, 1, "source", "out")["fingerprint"] != first
    Path("source/text").write_text("changed")
    assert _copy(params, 0, "source", "out")["fingerprint"] != first


def test_undeclared_section_is_refused(params: Params) -> None:
    with pytest.raises(AttributeError, match="'curate' is not in this stage's reads"):
        peek(params, out=Path("out"))
    assert not Path("out").exists()


def _peek(params: Params, key: str) -> None:
    peek_deeper(params, variant="elr", key=key, out=Path("out"))


@pytest.mark.parametrize("key", ["curate.max_aspect", "distill_unet.variants.svd_only.steps"])
def test_undeclared_key_is_refused_at_any_depth(params: Params, key: str) -> None:
    with pytest.raises(AttributeError, match="is not in this stage's reads"):
        _peek(params, key)
    _peek(params, "distill_unet.variants.elr.steps")
    assert Path("out").read_text().startswith("140 48 [0, 1]")


def test_unrecorded_keys_are_not_in_the_fingerprint(params: Params) -> None:
    _peek(params, "distill_unet.variants.elr")
    first = read_run(Path("work"), "peek_deeper/elr/distill_unet.variants.elr")["fingerprint"]
    data = params.data.model_copy(update={"parts": [0]})
    _peek(params.model_copy(update={"data": data}), "distill_unet.variants.elr")
    again = read_run(Path("work"), "peek_deeper/elr/distill_unet.variants.elr")["fingerprint"]
    assert again == first


def test_missing_input_says_what_to_do(params: Params) -> None:
    with pytest.raises(DistilleryError, match="copy_it/0: --source nowhere: not found; run"):
        _copy(params, 0, "nowhere", "out")


def test_conflicting_inputs_are_refused(params: Params) -> None:
    _copy(params, 0, "source", "teacher")
    _copy(params, 1, "teacher", "cache")
    Path("source/text").write_text("another teacher")
    _copy(params, 0, "source", "teacher")
    with pytest.raises(DistilleryError, match=r"made from copy_it/0 .* rerun whichever"):
        join(params, left=Path("teacher"), right=Path("cache"), out=Path("out"))
    assert not Path("out").exists()


def test_command_reports_one_line_and_logs_the_rest(
    params: Params, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as raised:
        fail.main(["--params", "params.yaml", "--out", "out"])
    assert raised.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["fail: started", "fail: half.tar: cut short; download it again"]
    assert not Path("out").exists()
    log = log_path(Path("work"), "fail").read_text()
    assert "fail: started" in log
    assert "Traceback" in log


def test_command_refuses_unknown_options(params: Params, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as raised:
        copy_it.main(["--params", "params.yaml", "--sauce", "x"])
    assert raised.value.code == 2


def test_resume_takes_finished_files_only(params: Params, tmp_path: Path) -> None:
    run = Run("copy_it/0", "f" * 64, Path("work"))
    shard = tmp_path / "00000.parquet"
    assert not run.reuse(shard)
    shard.write_text("finished")
    run.finish(shard)
    shard.unlink()
    assert run.reuse(shard)
    assert shard.read_text() == "finished"
    next(run.work.rglob("00000.parquet")).write_text("damaged")
    assert not run.reuse(shard)


SLOW_STAGE = """
import time
from pathlib import Path
import distillery.stage
from distillery.core.code.reach import Code
from distillery.params import load_params
from distillery.stage import Out, stage

distillery.stage.current_code = lambda verb: Code({}, ())  # this stage has no file

@stage(reads=["seed"])
def slow(params, run, out: Out) -> None:
    out.mkdir()
    for index in range(3):
        path = out / f"{index}.txt"
        if run.reuse(path):
            continue
        path.write_text(str(index))
        run.finish(path)
        print(f"finished {index}", flush=True)
        time.sleep(0 if Path("go").exists() else 60 * (index == 1))

slow(load_params(Path("params.yaml")), out=Path("out"))
"""


def test_killed_stage_leaves_nothing_and_resumes(params: Params) -> None:
    command = [sys.executable, "-c", SLOW_STAGE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    assert child.stdout.readline() == "finished 0\n"
    assert child.stdout.readline() == "finished 1\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not Path("out").exists()
    Path("go").touch()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "finished 2\n"
    assert sorted(p.name for p in Path("out").glob("*.txt")) == ["0.txt", "1.txt", "2.txt"]
    assert verify(Path("out")) == []


@stage(reads=["seed"])
def cut_short(params: Params, run: Run, source: In, out: Out) -> None:
    """Two files, the second only if there is a file `go`; what was reused is printed."""
    out.mkdir()
    for name in ("first", "second"):
        if run.reuse(out / name):
            print(f"reused {name}")
            continue
        if name == "second" and not Path("go").exists():
            raise KeyboardInterrupt
        (out / name).write_text(name)
        run.finish(out / name)


def _cut(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, formula: str
) -> tuple[str, str]:
    """Run it with the code `formula`; returns what it printed, and said."""
    monkeypatch.setattr("distillery.stage.current_code", lambda verb: Code({"f": formula}, ()))
    with contextlib.suppress(KeyboardInterrupt):
        cut_short(params, source=Path("source"), out=Path("out"))
    return capsys.readouterr()


def test_work_begun_with_other_code_waits_until_told(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert "reused" not in _cut(params, monkeypatch, capsys, "a - b")[0]
    assert "reused first" in _cut(params, monkeypatch, capsys, "a - b")[0]  # a comment changed
    printed, said = _cut(params, monkeypatch, capsys, "a + b")
    assert "reused" not in printed
    (line,) = [line for line in said.splitlines() if "begun with other code" in line]
    assert "starts anew: work/cut_short/" in line
    assert "DISTILLERY_RESUME=old-code" in line
    monkeypatch.setenv("DISTILLERY_RESUME", "old-code")
    Path("go").touch()
    printed, said = _cut(params, monkeypatch, capsys, "a * b")
    assert "reused first" in printed
    assert "goes on from work/cut_short/" in said
    assert read_manifest(Path("out"))["recipe"]["begun_with"]


def test_finished_work_is_not_spoken_of(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    Path("go").touch()
    _cut(params, monkeypatch, capsys, "a - b")
    printed, said = _cut(params, monkeypatch, capsys, "a + b")
    assert "reused" not in printed
    assert "other code" not in said
    assert "begun_with" not in read_manifest(Path("out"))["recipe"]


def test_work_of_other_inputs_is_not_resumed(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _cut(params, monkeypatch, capsys, "a - b")
    Path("source/text").write_text("other")
    printed, said = _cut(params, monkeypatch, capsys, "a - b")
    assert "reused" not in printed + said
    assert "other code" not in said


def test_an_unknown_wish_to_resume_is_refused(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILLERY_RESUME", "yes")
    with pytest.raises(DistilleryError, match="DISTILLERY_RESUME=yes: unknown; it is old-code"):
        cut_short(params, source=Path("source"), out=Path("out"))
