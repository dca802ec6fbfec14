"""A stage's lock follows what it computes, and a stage whose lock is out of date refuses.

That words are no code, and an operator is that of exactly its trainings, test_end_to_end says.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillery.core.code import lock
from distillery.core.code.lock import kept_codes, lock_text, stage_code, verbs
from project import tiny_params

ROOT = Path(__file__).resolve().parents[3]
TRAININGS = {"distill_unet", "finetune_control", "distill_controlnet", "distill_guidance"}


def _locks(package: Path) -> dict[str, str]:
    return {verb: lock_text(verb, stage_code(verb, package)) for verb in verbs(package)}


@pytest.fixture(scope="module")
def locks() -> dict[str, str]:
    return {verb: lock_text(verb, code) for verb, code in kept_codes().items()}


def _changed(target: Path, locks: dict[str, str], file: str, old: str, new: str) -> set[str]:
    """The stages whose lock changes with an edit of one file."""
    package = target / "src" / "distillery"
    shutil.copytree(ROOT / "src/distillery", package)
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    after = _locks(package)
    return {verb for verb in locks if after[verb] != locks[verb]}


def test_a_loss_of_all_trainings(tmp_path: Path, locks: dict[str, str]) -> None:
    old, new = "prediction.float() - wanted", "prediction.float() + wanted"
    assert _changed(tmp_path, locks, "diffusion/losses.py", old, new) == TRAININGS


def test_locks_say_what_changed(locks: dict[str, str]) -> None:
    lines = locks["curate"].splitlines()
    assert lines[0].startswith("#")
    assert lines[1].startswith("total ")
    assert lines[2] == "libraries PIL cv2 numpy pyarrow"
    assert lines[3:] == sorted(lines[3:])
    assert any(line.startswith("distillery.stages.curate:curate ") for line in lines)
    assert not any("distillery.params" in line for line in lines)


def _run_ingest(project: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "distillery.stages.ingest", "--params", "params.yaml",
               "--raw", "data/raw"]  # fmt: skip
    return subprocess.run(
        command, cwd=project, env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=False
    )


def test_a_stale_lock_is_refused_where_there_are_locks(tmp_path: Path) -> None:
    for name in ("src", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "params.yaml").write_text(tiny_params())
    stale = tmp_path / "workflow/code/ingest.lock"
    stale.write_text(stale.read_text().replace("total ", "total 0"))
    done = _run_ingest(tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ingest: {stale}: not what the code is now; run `python workflow/sync")
    assert not (tmp_path / "data").exists()
    shutil.rmtree(tmp_path / "workflow")
    assert _run_ingest(tmp_path).returncode == 0


def test_code_is_followed_once_for_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src" / "distillery"
    shutil.copytree(ROOT / "src/distillery", package, ignore=shutil.ignore_patterns("__py*"))
    followed, some = [], ["curate", "ingest"]
    monkeypatch.setattr(lock, "verbs", lambda package: some)
    monkeypatch.setattr(
        lock, "stage_code", lambda *given: followed.append(given) or stage_code(*given)
    )
    codes = kept_codes(package)
    assert kept_codes(package) == codes == {verb: stage_code(verb, package) for verb in some}
    assert len(followed) == len(some)
    (record,) = (package / "__pycache__").glob("stages.*.json")
    for damage in ("[]", "{", '{"sources": "0"}'):
        record.write_text(damage)
        assert kept_codes(package) == codes
    (package / "core/errors.py").open("a").write("# a word\n")
    assert kept_codes(package) == codes
    assert len(followed) == 5 * len(some)
