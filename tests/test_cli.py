"""The `distillery` command: one line and exit code 2 for bad input, JSON where a table is shown."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distillery
from distillery import cli
from distillery.commands import handover, plan, schedule
from distillery.core import artifacts, publishing
from distillery.core.errors import DistilleryError

ROOT = Path(__file__).resolve().parent.parent
_JOB = {"heavy": 0, "input": [], "output": [], "values": {}, "before": {}}
JOBS = [
    {**_JOB, "label": "curate/0", "needed": True, "reason": "params changed", "command": "one",
     "output": ["data/curated/0"], "values": {"curate": {"min_side_px": 64, "max_aspect": 3}}},
    {**_JOB, "label": "deduplicate", "needed": True, "reason": "after what comes before",
     "command": "two", "input": ["data/curated/0"], "output": ["data/selection"]},
    {**_JOB, "label": "ingest", "needed": False, "reason": "", "command": "none"},
]  # fmt: skip
BEFORE = {"curate": {"min_side_px": 48, "max_aspect": 3}}


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main(list(arguments))
    return raised.value.code


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    with publishing.publish(folder) as partial:
        partial.mkdir()
        (partial / "data.txt").write_text("text")
        artifacts.write_manifest(partial, "made", {}, {})
    return folder


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A workflow with two stages to run, of which one ran before."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    record = {"seconds": 75.0, "bytes": 3 * 1024**2, "params": BEFORE}
    artifacts.write_json(tmp_path / "work/runs/curate/0.json", record)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "resolve_jobs", lambda targets=("all",): JOBS)
    monkeypatch.setattr(handover, "resolve_jobs", lambda targets=("all",): JOBS)
    return JOBS


@pytest.mark.parametrize("command", [command.name for command in cli.app.registered_commands])
def test_help_has_examples_on_lines_of_their_own(
    command: str, capsys: pytest.CaptureFixture
) -> None:
    assert _run(command, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    examples = [line for line in lines if "Example:" in line]
    assert examples
    assert all(f"distillery {command}" in line for line in examples)
    assert all(line.count("Example:") == 1 for line in examples)


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(artifacts, "verify", refuse)
    assert _run("verify", "data/locked") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "distillery: data/locked: Permission denied; give another place"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("Error no file named model.safetensors\nin it"), "Error no file named model."),
        (BlockingIOError(11, "Busy"), "[Errno 11] Busy"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory (Unable to allocate 3 TiB)"),
        (RuntimeError("CUDA out of memory. Tried 2 GiB"), "out of memory (CUDA out of memory."),
    ],
)
def test_what_libraries_refuse_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise error

    monkeypatch.setattr(artifacts, "verify", refuse)
    assert _run("verify", "data") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distillery: {said}")


def test_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(artifacts, "verify", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main(["verify", "data"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--images", "a", "--reference", "b", "--out"),
        ("ranks", "--target-total", "790M", "--out"),
        ("latency", "--json"),
        ("profile", "--json"),
        ("compare", "a", "b", "--html"),
    ],
)
def test_a_folder_is_not_replaced_by_a_file(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.txt").write_text("text")
    assert _run(*arguments, str(tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}' is a directory" in line
    assert (tmp_path / "mine.txt").read_text() == "text"


def test_wrong_usage_names_the_command_whose_help_says_more(
    capsys: pytest.CaptureFixture,
) -> None:
    assert _run("generate", "--nonsense") == 2
    assert "See `distillery generate --help`." in capsys.readouterr().err
    assert _run("profile", "--batch", "0") == 2
    assert "greater than or equal to 1. See `distillery profile --help`." in capsys.readouterr().err
    assert _run("nonsense") == 2
    assert "See `distillery --help`." in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert _run("--version") == 0
    assert capsys.readouterr().out == f"distillery {distillery.__version__}\n"


def test_help_imports_nothing_heavy(capsys: pytest.CaptureFixture) -> None:
    """Each command is on one whole line, and none of their code is imported to show it."""
    command = [sys.executable, "-X", "importtime", "-m", "distillery.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = done.stdout.split("Commands:")[1]
    assert len(shown.split("\n")) > 10
    assert "..." not in shown
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "numpy", "pydantic", "snakemake", "dvc"}


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture) -> None:
    assert _run() == 0
    assert "snakemake --cores 8 all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["verify"], "Missing argument"),
        (["verify", "/nowhere"], "/nowhere: not found"),
        (["plan", "--bogus"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert _run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("distillery: ")
    assert message in lines[0]


def test_plan_outside_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert _run("plan") == 2
    assert "run this in the repository's root" in capsys.readouterr().err


def test_plan_shows_time_size_and_what_changed(jobs: list, capsys: pytest.CaptureFixture) -> None:
    assert _run("plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["curate/0", "75.0", "s", "3.0", "MiB"]
    assert lines[1].endswith("  curate.min_side_px: 48 -> 64")
    assert lines[2].split()[:3] == ["deduplicate", "-", "-"]
    assert lines[3].startswith("2 stages, about 75.0 s on ")
    assert lines[3].endswith("3.0 MiB to write; 1 never ran here, how long they take is not known")


def test_plan_reads_the_params_that_an_artefact_was_made_with(
    jobs: list, capsys: pytest.CaptureFixture
) -> None:
    with publishing.publish(Path("data/curated/0")) as partial:
        partial.mkdir()
        recipe = {"params": {"curate": {"min_side_px": 16}}}
        artifacts.write_manifest(partial, "curate/0", recipe, {})
    assert _run("plan", "--json") == 0
    row = json.loads(capsys.readouterr().out)["stages"][0]
    assert row["changes"] == {
        "curate.max_aspect": ["(missing)", 3],
        "curate.min_side_px": [16, 64],
    }


def test_plan_as_json(jobs: list, capsys: pytest.CaptureFixture) -> None:
    assert _run("plan", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in shown["stages"]] == ["curate/0", "deduplicate"]
    assert (shown["total_s"], shown["wall_s"], shown["num_unknown"]) == (75.0, 75.0, 1)


def test_one_stage_is_one_stage(jobs: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "resolve_jobs", lambda targets=("all",): JOBS[:1])
    assert "\n1 stage, about 75.0 s on " in plan.as_text(plan.plan(Path("work")))


@pytest.mark.parametrize(
    ("cores", "heavy", "wall_s"), [(1, 1, 11.0), (2, 2, 7.0), (8, 2, 7.0), (8, 8, 5.0)]
)
def test_the_time_that_a_plan_takes(cores: int, heavy: int, wall_s: float) -> None:
    """One job of 1 s, then three heavy ones that need it: 4, 2 and 4 s."""
    jobs = [{"heavy": 0, "input": [], "output": ["first"], "seconds": 1.0}] + [
        {"heavy": 1, "input": ["first"], "output": [name], "seconds": seconds}
        for name, seconds in (("a", 4.0), ("b", 2.0), ("c", 4.0))
    ]
    assert schedule.wall_s(jobs, cores, heavy) == wall_s


def test_a_plan_of_what_never_ran() -> None:
    rows = [plan.Row("ingest", "not made yet", None, None, {})] * 2
    assert plan.as_text(plan.Plan(rows, 0.0, 2)).splitlines()[-1] == (
        "2 stages; none ran here before, so how long it will take is not known"
    )


def test_plan_takes_paths_as_shells_complete_them(
    jobs: list[dict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []
    monkeypatch.setattr(plan, "resolve_jobs", lambda targets: asked.append(targets) or JOBS)
    assert _run("plan", "./models/unet/elr/", "all") == 0
    assert asked == [["models/unet/elr", "all"]]
    assert _run("plan", "--json", "--commands") == 2
    assert "give one of them" in capsys.readouterr().err


def test_plan_as_a_script(jobs: list, capsys: pytest.CaptureFixture) -> None:
    assert _run("plan", "--commands") == 0
    assert capsys.readouterr().out.splitlines() == ["set -e", "one", "two"]


def test_plan_with_nothing_to_do() -> None:
    nothing = plan.as_text(plan.Plan([], 0.0, 2))
    assert nothing == "Nothing to run: everything is up to date."


def test_adopt_refuses_what_is_out_of_date(jobs: list, capsys: pytest.CaptureFixture) -> None:
    assert _run("adopt") == 2
    assert "snakemake has 2 stages to run, first curate/0" in capsys.readouterr().err


def test_adopt_says_why_dvc_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    said = "ERROR: Unable to acquire lock.\n\nfor more see its page\n"
    refused = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(handover, "resolve_jobs", list)
    monkeypatch.setattr(handover, "_call", lambda *arguments: refused)
    assert _run("adopt") == 2
    assert capsys.readouterr().err == (
        "distillery: dvc commit failed: ERROR: Unable to acquire lock.\n"
    )


def test_trust_knows_what_snakemake_made(
    jobs: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    dirty = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setattr(handover, "_call", lambda *arguments: dirty)
    assert _run("trust") == 2
    assert "run `dvc repro --pull`, then trust" in capsys.readouterr().err
    handover.RECORDS.mkdir(parents=True)
    monkeypatch.setattr(handover, "resolve_jobs", lambda targets=("all",): JOBS[2:])
    assert _run("trust") == 2
    assert "run `distillery adopt`" in capsys.readouterr().err


def test_verify_finds_one_flipped_bit(artifact: Path, capsys: pytest.CaptureFixture) -> None:
    assert _run("verify", str(artifact)) == 0
    assert "every file matches" in capsys.readouterr().out
    (artifact / "data.txt").write_text("tex\x75")
    assert _run("verify", str(artifact)) == 1
    assert "data.txt: bytes do not match" in capsys.readouterr().out
    assert _run("verify", str(artifact), "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


def test_errors_of_several_lines_are_all_prefixed(
    jobs: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(targets: object = None) -> list:
        raise DistilleryError("a: 1\nb: 2")

    monkeypatch.setattr(plan, "resolve_jobs", fail)
    assert _run("plan") == 2
    assert capsys.readouterr().err.splitlines() == ["distillery: a: 1", "distillery: b: 2"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, level in (("student", 100), ("teacher", 110)):
        (tmp_path / name).mkdir()
        for index in range(3):
            pixels = np.full((16, 16, 3), level + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path / "student", tmp_path / "teacher"


def test_evaluate_writes_the_contract(folders: tuple, capsys: pytest.CaptureFixture) -> None:
    student, teacher = map(str, folders)
    out = folders[0].parent / "metrics.json"
    arguments = ["--images", student, "--reference", teacher, "--out", str(out)]
    assert _run("evaluate", *arguments) == 0
    found = json.loads(out.read_text())
    assert found["metrics"]["psnr"]["value"] == pytest.approx(28.1308, abs=1e-3)  # 20 log10 25.5
    assert found["metrics"]["psnr"]["n"] == 3
    assert set(found["skipped"]) >= {"fid", "kid", "clip_score"}
    assert "skipped: " in capsys.readouterr().out


def test_evaluate_says_what_maps_are_good_for(
    folders: tuple, capsys: pytest.CaptureFixture
) -> None:
    student, teacher = folders
    maps, out = student.parent / "maps", student.parent / "metrics.json"
    maps.mkdir()
    for index in range(3):
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(maps / f"{index}.png")
    arguments = ["--images", str(student), "--reference", str(teacher), "--out", str(out)]
    assert _run("evaluate", *arguments, "--conditions", str(maps)) == 0
    assert "maps: no value is above 1 of 255" in capsys.readouterr().err
    given = ("--conditions", str(maps), "--condition-kind", "mask")
    assert _run("evaluate", *arguments, *given) == 2
    assert "nothing compares an image with its mask" in capsys.readouterr().err
    assert _run("evaluate", *arguments, *given[:2], *given[:2]) == 2
    assert "one folder of maps at a time" in capsys.readouterr().err


def test_evaluate_refuses_a_metric_that_cannot_be_had(
    folders: tuple, capsys: pytest.CaptureFixture
) -> None:
    student, teacher = map(str, folders)
    out = folders[0].parent / "metrics.json"
    arguments = ["--images", student, "--reference", teacher, "--out", str(out)]
    assert _run("evaluate", *arguments, "--metrics", "psnr,fid") == 2
    assert not out.exists()
    (folders[1] / "2.png").write_bytes(b"no image")
    assert _run("evaluate", *arguments) == 2
    assert "2.png" in capsys.readouterr().err
