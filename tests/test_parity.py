"""Snakemake and DVC run the same stages: same commands, inputs, outputs and watched params."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from distillery.core.code.lock import stage_reads
from distillery.stages import LIGHT
from warm_python import parse_once

parse_once()
ROOT = Path(__file__).resolve().parent.parent
PATHS = yaml.safe_load((ROOT / "params.yaml").read_text())["paths"]


def _key(command: str) -> str:
    """What identifies a job: its stage and its output, which is the last option."""
    return re.search(r"distillery\.stages\.(\w+)", command).group(1) + " " + command.split()[-1]


@pytest.fixture(scope="module")
def snakemake_jobs() -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, "workflow/jobs.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {_key(j["command"]): j for j in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def dvc_stages() -> dict:
    with Repo(str(ROOT)) as repo:
        return {_key(stage.cmd): stage for stage in repo.index.stages}


@pytest.fixture(scope="module")
def pairs(snakemake_jobs: dict, dvc_stages: dict) -> list[tuple[dict, object]]:
    assert set(snakemake_jobs) == set(dvc_stages)
    return [(job, dvc_stages[key]) for key, job in snakemake_jobs.items()]


def _relative(paths: list) -> set[str]:
    return {Path(path.fs_path).relative_to(ROOT).as_posix() for path in paths}


def _outputs(stages: dict) -> set[str]:
    return set().union(*(_relative(stage.outs) for stage in stages.values()))


def _expanded(folder: str, outputs: set[str]) -> set[str]:
    """What Snakemake lists for a DVC dependency: outputs at or below it, or its source files."""
    below = {out for out in outputs if out == folder or out.startswith(folder + "/")}
    if below:
        return below
    if (ROOT / folder).is_file():
        return {folder}
    return {f.relative_to(ROOT).as_posix() for f in (ROOT / folder).rglob("*") if f.is_file()}


def test_names_and_commands_are_equal(pairs: list) -> None:
    for job, stage in pairs:
        assert stage.name.split("@")[0] == job["rule"]
        assert stage.cmd == job["command"]


def test_inputs_are_equal(pairs: list, dvc_stages: dict) -> None:
    outputs = _outputs(dvc_stages)
    for job, stage in pairs:
        deps = [dep for dep in stage.deps if dep.def_path and not hasattr(dep, "params")]
        declared = set().union(*(_expanded(path, outputs) for path in _relative(deps)))
        assert declared == set(job["input"]), job["label"]


def test_latency_tables_are_inputs_of_every_start(pairs: list) -> None:
    tables = yaml.safe_load((ROOT / "params.yaml").read_text())["init_student"]["tables"]
    starts = [(job, stage) for job, stage in pairs if job["rule"].startswith("init_student")]
    assert {job["rule"] for job, _ in starts} >= {"init_student", "init_student_random"}
    for job, stage in starts:
        assert tables in job["input"]
        assert tables in {dep.def_path for dep in stage.deps}


def test_outputs_are_equal_and_cached(pairs: list) -> None:
    for job, stage in pairs:
        assert _relative(stage.outs) == set(job["output"])
        assert all(out.use_cache and not out.persist for out in stage.outs), job["label"]


def test_watched_params_are_equal(pairs: list) -> None:
    for job, stage in pairs:
        watched = [key for dep in stage.deps if hasattr(dep, "params") for key in dep.params]
        assert sorted(watched) == job["params"], job["label"]


def test_code_is_one_file(pairs: list) -> None:
    for job, _ in pairs:
        verb = re.search(r"distillery\.stages\.(\w+)", job["command"]).group(1)
        code = [path for path in job["input"] if path.endswith((".py", ".lock"))]
        assert code == [f"workflow/code/{verb}.lock"]


def test_generated_files_are_current() -> None:
    command = [sys.executable, "workflow/sync.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_section_of_params_is_watched(snakemake_jobs: dict) -> None:
    watched = {key.split(".")[0] for job in snakemake_jobs.values() for key in job["params"]}
    assert watched | {"paths"} == set(yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_paths_stand_in_params_only() -> None:
    literal = re.compile("|".join(rf"(?<![\w/.-]){re.escape(p)}/\\w" for p in PATHS.values()))
    sources = [*ROOT.glob("workflow/rules/*.smk"), ROOT / "dvc.yaml", ROOT / "workflow/Snakefile"]
    for source in [*sources, *ROOT.glob("src/distillery/stages/*.py")]:
        for number, line in enumerate(source.read_text().splitlines(), start=1):
            code = line.split("#")[0].replace("src/distillery/", "")
            assert not literal.search(code), f"{source.name}:{number}: {line.strip()}"


def test_stages_without_torch_import_none() -> None:
    """Importing torch costs 1.6 CPU seconds; most of these stages run once per part."""
    script = (
        f"import importlib, sys\nfor verb in {LIGHT!r}:\n"
        "    importlib.import_module(f'distillery.stages.{verb}')\n"
        "    assert 'torch' not in sys.modules, verb"
    )
    command = [sys.executable, "-B", "-c", script]  # an option that warm_python does not take over
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reads_are_found_without_importing() -> None:
    from distillery.stages.curate import curate

    assert stage_reads("curate") == curate.reads
