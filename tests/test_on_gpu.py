"""scripts/on_gpu.sh, as far as a CPU goes: all parts at tiny sizes, in one process."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILES = 8


def test_a_dry_run_writes_what_docs_results_takes(tmp_path: Path, python: Path):
    out = tmp_path / "out"
    changed = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{python}:{os.environ['PATH']}"}
    process = subprocess.run(
        ["scripts/on_gpu.sh", "--dry", str(out)], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, **changed},
    )  # fmt: skip
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


@pytest.fixture
def profile_part(monkeypatch: pytest.MonkeyPatch):
    """The module of the part, whose rows take no time."""
    monkeypatch.syspath_prepend(ROOT / "scripts/gpu")
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


def run_profile(part, out: Path, monkeypatch, profiled: Profiled) -> dict[str, dict]:
    monkeypatch.setattr(part, "profile", profiled)
    monkeypatch.setattr(part, "device_name", lambda device: "H100")
    monkeypatch.setattr(part, "ratios", lambda rows: {"of": len(rows)})
    place = SimpleNamespace(
        dry=False, out=out, work=out.with_name("out.work"), device=SimpleNamespace(type="cuda")
    )
    with contextlib.suppress(KeyboardInterrupt, RuntimeError):
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


def test_the_script_starts_as_many_predictions_as_there_are_files(profile_part):
    script = (ROOT / "scripts/on_gpu.sh").read_text()
    numbers = " ".join(str(number) for number in range(len(profile_part.FILES)))
    assert f"for file in {numbers}; do" in script
