"""The preset quick from nothing to the report by both front ends, then shared with a colleague.

One file, because all of it needs the same slow run and a file stays on one test worker.
"""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from distillery.core.artifacts import MANIFEST, hash_files, verify
from project import DVC_TARGETS, Project
from reword import reword

pytestmark = pytest.mark.timeout(900)


def _hashes(project: Project) -> dict[str, str]:
    return {
        f"{folder}/{name}": value
        for folder in ("data", "models", "samples", "metrics")
        for name, value in hash_files(project.root / folder).items()
    }


def _manifests(project: Project) -> dict[str, str]:
    paths = [
        p for f in ("data", "models", "samples") for p in project.root.rglob(f"{f}/**/{MANIFEST}")
    ]
    return {str(p.relative_to(project.root)): p.read_text() for p in paths}


def test_both_front_ends_give_the_same_bytes(finished: tuple[Project, Project]) -> None:
    by_snakemake, by_dvc = map(_hashes, finished)
    assert {name: by_snakemake.get(name) for name in by_dvc} == by_dvc
    assert "metrics/unet/elr.json" in by_dvc


def test_manifests_agree_too(finished: tuple[Project, Project]) -> None:
    by_snakemake, by_dvc = map(_manifests, finished)
    assert {name: by_snakemake.get(name) for name in by_dvc} == by_dvc
    assert len(by_dvc) > 10


def test_every_artefact_verifies(finished: tuple[Project, Project]) -> None:
    for folder in ("data", "models", "samples", "reports"):
        assert verify(finished[0].root / folder) == []


def test_funnel_adds_up(finished: tuple[Project, Project]) -> None:
    funnel = json.loads((finished[0].root / "data/selection/funnel.json").read_text())
    lost = sum(funnel["rejected"].values()) + sum(funnel["failed"].values())
    assert funnel["input"] == funnel["kept"] + lost == 96


def test_report_is_there(finished: tuple[Project, Project]) -> None:
    reports = finished[0].root / "reports"
    assert "elr" in (reports / "index.html").read_text()
    claims = json.loads((reports / "claims.json").read_text())
    assert all(claim["verdict"] for claim in claims)


def test_dvc_reads_the_reports_numbers(finished: tuple[Project, Project]) -> None:
    project = finished[0]
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))[""]["data"]
    own = json.loads((project.root / "metrics/unet/elr.json").read_text())["metrics"]
    assert list(shown) == ["reports/metrics.json"]
    found = shown["reports/metrics.json"]["data"]
    assert found["unet/elr"]["reader_shape"] == own["reader_shape"]["value"]
    assert sum(map(len, found.values())) <= 10
    page = project.run("dvc", "plots", "show", "--out", "work/plots").splitlines()[-1]
    drawn = Path(page.removeprefix("file://")).read_text()
    assert "validation loss" in drawn
    assert "unet/elr" in drawn


def test_snakemakes_own_report_is_one_archive(
    finished: tuple[Project, Project], tmp_path: Path
) -> None:
    finished[0].run("snakemake", "all", "--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        names = archive.namelist()
    assert "report/report.html" in names
    assert any(name.endswith("/index.html") for name in names)


def test_nothing_is_left_to_do(finished: tuple[Project, Project]) -> None:
    by_snakemake, by_dvc = finished
    assert "Nothing to be done" in by_snakemake.run("snakemake", "--dry-run", "all")
    assert "Running stage" not in by_dvc.run("dvc", "repro", *DVC_TARGETS)


def _copied(project: Project, place: Path) -> Project:
    shutil.copytree(project.root, place)
    return Project(place, project.python)


def test_other_words_in_every_module_recompute_nothing(
    finished: tuple[Project, Project], tmp_path: Path
) -> None:
    by_snakemake, by_dvc = (
        _copied(project, tmp_path / str(number)) for number, project in enumerate(finished)
    )
    assert reword(by_snakemake.root / "src") > 200
    by_snakemake.run_file("workflow/sync.py")
    shutil.rmtree(by_dvc.root / "src")  # the same words there, and what sync.py found in them
    shutil.copytree(by_snakemake.root / "src", by_dvc.root / "src")
    by_dvc.run_file("workflow/sync.py")
    assert "Nothing to be done" in by_snakemake.run("snakemake", "--dry-run", "all")
    assert "up to date" in by_dvc.run("dvc", "status", *DVC_TARGETS)


def test_a_changed_loss_reruns_the_trainings_that_use_it(
    finished: tuple[Project, Project], tmp_path: Path
) -> None:
    project = _copied(finished[0], tmp_path / "project")
    file = project.root / "src/distillery/diffusion/layerwise.py"
    file.write_text(file.read_text().replace("(mine - mean)", "(mine + mean)"))
    project.run_file("workflow/sync.py")
    plan = json.loads(project.run("distillery.cli", "plan", "--json"))["stages"]
    causes = {row["stage"] for row in plan if row["reason"].startswith("changed: workflow/code")}
    assert {label.split("/")[0] for label in causes} == {"distill_controlnet", "finetune_control"}


def test_a_further_decomposition_reruns_no_student(finished: tuple[Project, Project]) -> None:
    more = ["--config", "init_student={methods: [svd, planned]}"]
    output = finished[0].run("snakemake", "--dry-run", "--printshellcmds", "all", *more)
    assert "--method planned" in output
    stages = set(re.findall(r"distillery\.stages\.(\w+) ", output))
    assert stages == {"init_student", "profile", "report"}
    assert "--method svd" not in output


def test_stages_left_logs_and_records(finished: tuple[Project, Project]) -> None:
    work = finished[0].root / "work"
    records = {p.relative_to(work / "runs").with_suffix("") for p in work.glob("runs/**/*.json")}
    logs = {p.relative_to(work / "logs").with_suffix("") for p in work.glob("logs/**/*.log")}
    assert records == logs
    log = (work / "logs/distill_unet/elr.log").read_text()
    assert "distill_unet/elr: started" in log
    assert "100%" in log


def test_override_reruns_what_reads_it(finished: tuple[Project, Project]) -> None:
    override = "generate={guidance_scale: 1.5}"
    command = ["snakemake", "--dry-run", "--printshellcmds", "all", "--config", override]
    output = finished[0].run(*command)
    assert "distillery.stages.generate --params work/params-" in output
    assert "distillery.stages.evaluate --params work/params-" in output
    assert "distillery.stages.distill_unet" not in output


def test_bad_override_is_one_readable_line(finished: tuple[Project, Project]) -> None:
    override = "generate={guidance_scale: strong}"
    process = finished[0].start("snakemake", "--dry-run", "all", "--config", override)
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "generate.guidance_scale: Input should be a valid number (got 'strong')" in output
    assert "Traceback" not in output


def test_a_variant_that_nobody_described_is_one_readable_line(
    finished: tuple[Project, Project],
) -> None:
    process = finished[0].start("distillery.cli", "plan", "models/guidance/stronger")
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "No rule to produce models/guidance/stronger" in output
    assert len(output.splitlines()) == 1


def test_the_script_of_a_plan_runs_on_another_device(
    finished: tuple[Project, Project], tmp_path: Path
) -> None:
    """The device only pretends (see pretend_device.py); what is CUDA's own stays untested here."""
    project = Project(tmp_path / "project", finished[0].python)
    shutil.copytree(finished[0].root, project.root)
    wanted = ["metrics/unet/elr.json", "samples/control/elr", "samples/whole/student",
              "metrics/profile.json"]  # fmt: skip
    for made in ("data/teacher_cache", "models", "samples", "metrics"):
        shutil.rmtree(project.root / made)
    project.edit_params("num_prediction_samples: 96", "num_prediction_samples: 4")
    script = project.run("distillery.cli", "plan", "--commands", *wanted)
    project.run_script("pretend_device", script)
    assert all((project.root / target).exists() for target in wanted)


def _executed(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.fixture(scope="module")
def given(finished: tuple[Project, Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose Snakemake run was adopted by DVC and pushed to a folder."""
    first = Project(tmp_path_factory.mktemp("sharing") / "first", finished[0].python)
    shutil.copytree(finished[0].root, first.root)
    remote = first.root.parent / "remote"
    first.run("distillery.cli", "adopt")
    first.run("dvc", "remote", "add", "--default", "team", str(remote))
    first.run("dvc", "remote", "modify", "team", "verify", "true")
    first.run("dvc", "push", "--run-cache")
    first.git("add", "dvc.lock", ".dvc/config")
    first.git("commit", "--message", "share")
    return first


@pytest.fixture(scope="module")
def taken(given: Project) -> Project:
    """A clone of it, with everything pulled."""
    second = Project(given.root.parent / "second", given.python)
    given.git("clone", "--quiet", str(given.root), str(second.root))
    second.run("dvc", "pull")  # all at once; repro --pull alone asks the remote stage by stage
    output = second.run("dvc", "repro", "--pull")
    assert _executed(output) == []
    return second


def test_colleague_gets_the_same_files(given: Project, taken: Project) -> None:
    name = "models/unet/elr/diffusion_pytorch_model.distillery.safetensors"
    assert (given.root / name).read_bytes() == (taken.root / name).read_bytes()
    assert taken.run("dvc", "status", "--quiet") == ""


def test_snakemake_trusts_what_was_pulled(taken: Project) -> None:
    taken.run("distillery.cli", "trust")
    assert "Nothing to be done" in taken.run("snakemake", "--dry-run", "all")
    taken.edit_params("guidance_scale: 3.0", "guidance_scale: 2.0")
    plan = taken.run("distillery.cli", "plan")
    assert "generate/unet/elr" in plan
    assert "distill_unet/elr" not in plan
    taken.edit_params("guidance_scale: 2.0", "guidance_scale: 3.0")


def test_training_reuses_the_colleagues_cache(taken: Project) -> None:
    taken.edit_params("steps: 4}", "steps: 3}")
    output = taken.run("dvc", "repro", "--pull", "distill_unet@elr")
    assert _executed(output) == ["distill_unet@elr"]
    taken.edit_params("steps: 3}", "steps: 4}")
    assert _executed(taken.run("dvc", "repro", "distill_unet@elr")) == []  # from the run cache


def test_neither_hands_over_what_is_out_of_date(taken: Project) -> None:
    taken.edit_params("num_inference_steps: 2", "num_inference_steps: 3")
    for command, reason in (
        ("trust", "dvc status is not clean"),
        ("adopt", "stages to run, first"),
    ):
        process = taken.start("distillery.cli", command)
        output, _ = process.communicate()
        assert process.returncode == 2
        assert reason in output
        assert len(output.splitlines()) == 1
    taken.edit_params("num_inference_steps: 3", "num_inference_steps: 2")


def test_truncated_object_on_the_remote_is_found(given: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(given.root.parent / "remote", remote)
    largest = max((p for p in remote.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:1000])
    third = Project(tmp_path / "third", given.python)
    given.git("clone", "--quiet", str(given.root), str(third.root))
    third.run("dvc", "remote", "modify", "--local", "team", "url", str(remote))
    process = third.start("dvc", "pull")
    output, _ = process.communicate()
    assert process.returncode != 0, output
