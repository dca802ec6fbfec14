"""A signal is one line and the exit code of shells, and nothing half-written stays."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from distillery import cli
from distillery.core import interrupts
from distillery.core.code.reach import Code
from distillery.core.log import errors_since
from distillery.core.run import Run
from distillery.params import Params
from distillery.stage import Out, stage

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)


@pytest.fixture(autouse=True)
def _in_a_terminal() -> Iterator[None]:
    """No signal is ignored, as some are for what a shell starts with `&` or `nohup`."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@stage(reads=["seed"])
def stop(params: Params, run: Run, number: int, out: Out) -> None:
    """Half-way, a signal comes."""
    out.mkdir()
    (out / "text").write_text("half")
    os.kill(os.getpid(), number)


@SIGNALS
def test_a_signal_ends_a_stage_in_one_line(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distillery.stage.current_code", lambda verb: Code({}, ()))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as end:
        stop.main(["--params", "params.yaml", "--number", str(int(number)), "--out", "out"])
    _, said = capsys.readouterr().err.splitlines()
    assert end.value.code == code
    assert said == f"stop: interrupted by {number.name}; run the same command to go on"
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "work"}
    assert errors_since(Path("work/logs"), 0) == [
        f"stop/{int(number)}: interrupted by {number.name}; run the same command to go on"
    ]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


@SIGNALS
def test_a_signal_ends_a_command_in_one_line(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    app = typer.Typer()
    app.command()(lambda: os.kill(os.getpid(), number))
    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"distillery: interrupted by {number.name}")


@pytest.mark.parametrize("command", ["-m", "/usr/bin/distillery"])
@SIGNALS
def test_a_signal_while_modules_are_imported_is_one_line(
    number: int, code: int, command: str
) -> None:
    script = (
        f"import os, sys; sys.argv = [{command!r}]; import distillery; "
        f"os.kill(os.getpid(), {int(number)}); print('went on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"interrupted by {number.name}; run the same command to go on\n"


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.as_errors():
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _held(done: list, *numbers: int, may_end: bool = False) -> None:
    with interrupts.as_errors():
        with interrupts.held(lambda: may_end) as waiting:
            for number in numbers:
                os.kill(os.getpid(), number)
                done.append(waiting.number)
        done.append("after")


@SIGNALS
def test_a_held_signal_comes_at_the_end(number: int, code: int) -> None:
    done = []
    with pytest.raises(interrupts.Interrupted) as end:
        _held(done, number)
    assert done == [number]
    assert end.value.exit_code == code


@pytest.mark.parametrize("may_end", [True, False])
def test_a_second_signal_and_one_that_may_end_it_do_not_wait(may_end: bool) -> None:
    done = []
    with pytest.raises(interrupts.Interrupted):
        _held(done, signal.SIGTERM, signal.SIGINT, may_end=may_end)
    assert done == ([] if may_end else [signal.SIGTERM])


def test_without_a_signal_holding_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.held(lambda: False) as waiting:
        assert signal.getsignal(signal.SIGTERM) is not before
    assert waiting.number is None
    assert signal.getsignal(signal.SIGTERM) is before
