"""A stage that a warm process runs is, for whoever started it, one that imported for itself."""

import difflib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import toy
from distillery.core.warm.client import SWITCH

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("accelerate", "cv2", "diffusers", "torch", "torchmetrics", "transformers")
KILLED = "the process that ran this was killed; run the same command to go on"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROBE = """
import json, os, resource, signal, sys

from distillery import shared

sys.stderr.write(f"first of {shared.NAME}\\n")
print(sys.argv[1:], __name__, os.path.relpath(__file__), flush=True)
sys.stderr.write("third\\n")
environment = {n: v for n, v in os.environ.items() if n != "DISTILLERY_WARM"}
path = [p for p in sys.path if "__editable__" not in p]
os.umask(umask := os.umask(0))
print(os.getcwd(), umask, sys.stdin.read(), sys.executable)
print(json.dumps([path, *environment.items()], indent=0))
print(os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_NOFILE))
print([str(signal.getsignal(n)).split(" at ")[0] for n in (2, 15, 1, 13)])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), sys.stdout.encoding, sys.flags.utf8_mode)
if "hang" in sys.argv:
    print("hanging", os.getpid(), os.getppid(), flush=True)
    signal.pause()
exec(sys.argv[-1])
"""
SLOW = """
import signal
from distillery.core.code.reach import Code
import distillery.stage
from distillery.stage import Out, stage

distillery.stage.current_code = lambda verb: Code({}, ())  # this stage has no lock

@stage(reads=["seed"])
def slow(params, run, out: Out) -> None:
    out.mkdir()
    print("half", flush=True)
    signal.pause()

slow.main()
"""


def _hear(*numbers: int) -> None:
    """Let these signals end a process, as in a terminal; the others are ignored, as by `nohup`."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number in numbers else signal.SIG_IGN)


class Stages:
    """A copy of the package with stages of the tests, started as front ends start them."""

    def __init__(self, root: Path, warm: str) -> None:
        self.root, self.warm = root, warm
        package = root / "src/distillery"
        (package / "stages").mkdir(parents=True)
        for entry in (ROOT / "src/distillery").iterdir():
            if entry.name not in ("stages", "__pycache__"):
                (package / entry.name).symlink_to(entry)
        shutil.copy(ROOT / "src/distillery/stages/__init__.py", package / "stages")
        self.edit("stages/probe.py", PROBE)
        self.edit("stages/slow.py", SLOW)
        self.edit("shared.py", "NAME = 'one'")
        shutil.copy(ROOT / "params.yaml", root)

    def edit(self, name: str, text: str) -> None:
        """Write a file of the package."""
        (self.root / "src/distillery" / name).write_text(text)

    def start(
        self, stage: str, *arguments: str, warm: str | None = None, **options: object
    ) -> subprocess.Popen[str]:
        """Start it; its output goes to one pipe. `warm`: another server, or `0`."""
        command = [sys.executable, "-m", f"distillery.stages.{stage}", *arguments]
        return self.spawn(command, warm=warm, **options)

    def spawn(
        self, command: list[str], warm: str | None = None, **options: object
    ) -> subprocess.Popen[str]:
        """Start a command in the folder."""
        environment = {**os.environ, "PYTHONPATH": "src", SWITCH: warm or self.warm}
        options.setdefault("preexec_fn", functools.partial(_hear, *SIGNALS))
        return subprocess.Popen(
            command, cwd=self.root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment | options.pop("environment", {}), **options,
        )  # fmt: skip

    def run(self, *words: str, **options: object) -> tuple[str, int]:
        """What it said, and its exit code."""
        process = self.start(*words, **options)
        said, _ = process.communicate("given")
        return said, process.returncode


@pytest.fixture
def stages(tmp_path: Path, python: Path) -> Stages:
    return Stages(tmp_path, str(python.parent / "socket"))


@pytest.mark.parametrize(
    "code",
    ["", "sys.exit(3)", "sys.exit('said')", "1 / 0", "os.kill(os.getpid(), 9)", "os.abort()"],
)
def test_it_says_and_ends_as_from_cold(stages: Stages, code: str) -> None:
    command = ("probe", "--option", "it's", code)
    options = {"umask": 0o27, "preexec_fn": functools.partial(_hear, signal.SIGINT, signal.SIGTERM)}
    warm, cold = (stages.run(*command, warm=how, **options) for how in (None, "0"))
    lines = difflib.ndiff(cold[0].splitlines(), warm[0].splitlines())
    assert [line for line in lines if not line.startswith(" ")] == []
    assert warm == cold


def test_it_is_another_process_with_the_libraries(stages: Stages) -> None:
    code = "print('torch' in sys.modules, os.getppid())"
    assert stages.run("probe", code)[0].splitlines()[-1] != f"True {os.getpid()}"
    assert stages.run("probe", code)[0].splitlines()[-1].startswith("True ")
    assert stages.run("probe", code, warm="0")[0].splitlines()[-1] == f"False {os.getpid()}"


def test_an_edit_is_seen_at_once(stages: Stages) -> None:
    assert stages.run("probe", "")[0].startswith("first of one\n")
    stages.edit("shared.py", "NAME = 'another'")
    assert stages.run("probe", "")[0].startswith("first of another\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_one_line(stages: Stages, number: signal.Signals) -> None:
    process = stages.start("slow", "--params", "params.yaml", "--out", "out")
    assert process.stdout.readline() == "slow: started\n"
    assert process.stdout.readline() == "half\n"
    process.send_signal(number)
    said, _ = process.communicate()
    assert said == f"slow: interrupted by {number.name}; run the same command to go on\n"
    assert process.returncode == 128 + number
    assert [p.name for p in stages.root.iterdir() if "out" in p.name] == []


def _hang(stages: Stages, **options: object) -> tuple[subprocess.Popen[str], int, int]:
    """A stage that waits; its own process id and that of its server."""
    process = stages.start("probe", "hang", **options)
    process.stdin.close()
    while not (line := process.stdout.readline()).startswith("hanging"):
        assert line
    _, own, server = line.split()
    return process, int(own), int(server)


def _soon(is_so: Callable[[], bool]) -> bool:
    """Whether it is within a minute; it takes some ms, unless the machine is busy."""
    until = time.monotonic() + 60
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    return is_so()


def _state(process: int) -> str:
    """Its letter in the system's list; empty if it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_a_killed_client_takes_its_stage_with_it(stages: Stages) -> None:
    process, own, _ = _hang(stages)
    process.kill()
    process.wait()
    assert _soon(lambda: _state(own) == "")


def test_a_stopped_client_stops_its_stage(stages: Stages) -> None:
    process, own, _ = _hang(stages)
    process.send_signal(signal.SIGTSTP)
    assert _soon(lambda: _state(own) == _state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    assert _soon(lambda: _state(own) == _state(process.pid) == "S")
    process.kill()


def test_without_its_server_it_starts_cold(stages: Stages) -> None:
    said, code = stages.run("probe", "print('torch' in sys.modules)", warm="/nowhere")
    first, *_, last = said.splitlines()
    assert first == ("no warm start: No such file or directory; the libraries are imported anew")
    assert (last, code) == ("False", 0)


@pytest.fixture
def front_end(stages: Stages) -> Callable[..., subprocess.Popen[str]]:
    """Run a line of a shell as a front end does: libraries are empty, so a server starts fast."""
    libraries = stages.root / "libraries"
    libraries.mkdir()
    for name in LIBRARIES:
        (libraries / f"{name}.py").touch()
    (stages.root / "dvc").write_text('eval "$1"\nexit $?\n')

    def start(line: str, *words: str, **options: object) -> subprocess.Popen[str]:
        stage = f"{sys.executable} -m distillery.stages.probe"
        command = ["bash", "dvc", line.replace("RUN", stage), *words]
        places = {"PYTHONPATH": f"src:{libraries}"}
        return stages.spawn(command, warm="1", environment=places, **options)

    return start


def _servers(said: str) -> set[int]:
    return {int(number) for number in re.findall(r"^server (\d+)$", said, re.MULTILINE)}


def test_stages_of_a_front_end_share_a_server_that_ends_with_it(front_end: Callable) -> None:
    code = "os.write(1, b'\\nserver %d %d\\n' % (os.getppid(), 'torch' in sys.modules))"  # as one
    line = f'RUN "{code}" & RUN "{code}" & wait; DVC_STAGE=x RUN "{code}"'
    said, _ = front_end(line).communicate()
    found = re.findall(r"^server (\d+) 1$", said, re.MULTILINE)
    assert len(found) == 3, said
    assert len(set(found)) == 1
    assert _soon(lambda: _state(int(found[0])) == "")


def test_another_environment_is_another_server(front_end: Callable) -> None:
    code = "print('server', os.getppid())"
    said, _ = front_end(f'RUN "{code}"; OMP_NUM_THREADS=7 RUN "{code}"').communicate()
    assert len(_servers(said)) == 2


def test_a_killed_server_is_one_line_and_its_stages_end(front_end: Callable) -> None:
    code = "print('server', os.getppid(), flush=True); signal.pause()"
    process = front_end(f'RUN "{code}"')
    process.stdin.close()
    while not (server := _servers(line := process.stdout.readline())):
        assert line
    os.kill(*server, signal.SIGKILL)
    assert process.stdout.read() == f"{KILLED}\n"
    assert process.wait() == 137


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("RUN '{code}'", ["--target-jobs"]),  # the Snakemake of one job of a cluster
        ("DISTILLERY_WARM=0 RUN '{code}'", []),
        (f"{sys.executable} -B -m distillery.stages.probe '{{code}}'", []),
        ("unshare --user RUN '{code}'", []),  # as in a container
    ],
)
def test_what_can_not_be_handed_over_starts_cold(
    front_end: Callable, line: str, words: list[str]
) -> None:
    process = front_end(line.format(code='print("server", os.getppid())'), *words)
    said, _ = process.communicate()
    assert _servers(said) == {process.pid}, said


def test_a_training_gives_the_same_bytes(stages: Stages) -> None:
    """As in this process, which has imported for itself."""
    code = "import toy; from pathlib import Path as P; toy.train_to_file(P('work'), P('warm'), 0)"
    said, end = stages.run("probe", f"sys.path.append({str(ROOT / 'tests')!r}); {code}")
    assert end == 0, said
    toy.train_to_file(stages.root / "other", stages.root / "cold", 0)
    assert (stages.root / "warm").read_bytes() == (stages.root / "cold").read_bytes()
