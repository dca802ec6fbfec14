"""A plan says which keys changed, and whose last time says nothing of the next."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillery.commands import plan
from distillery.commands.schedule import settings_differ
from distillery.core.artifacts import write_json

ROOT = Path(__file__).resolve().parents[2]
AFTER = "after what comes before"


def _job(label: str, reason: str, values: dict, before: dict | None = None) -> dict[str, Any]:
    return {"label": label, "reason": reason, "values": values, "before": before or {},
            "needed": True, "heavy": 0, "input": [], "output": [label], "command": ""}  # fmt: skip


def _ran(work: Path, label: str, params: dict) -> None:
    record = {"seconds": 60.0, "bytes": 1024, "params": params}
    write_json(work / f"runs/{label}.json", record)


def _lines(monkeypatch: pytest.MonkeyPatch, work: Path, *jobs: dict[str, Any]) -> list[str]:
    monkeypatch.setattr(plan, "resolve_jobs", lambda targets=("all",): jobs)
    return plan.as_text(plan.plan(work)).splitlines()[1:]


def _reason(monkeypatch: pytest.MonkeyPatch, work: Path, job: dict[str, Any]) -> str:
    return _lines(monkeypatch, work, job)[0].split(" KiB  ")[-1]


def test_a_stages_own_keys_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ran(tmp_path, "curate/0", {"curate": {"min_side_px": 48}})
    job = _job("curate/0", AFTER, {"curate": {"min_side_px": 64}})
    assert _reason(monkeypatch, tmp_path, job) == f"curate.min_side_px: 48 -> 64; {AFTER}"
    job["reason"] = "changed: data/raw"
    assert _reason(monkeypatch, tmp_path, job).endswith("48 -> 64; changed: data/raw")
    job["reason"] = "not made yet"
    assert _reason(monkeypatch, tmp_path, job) == "not made yet"


def test_a_key_that_changed_since_snakemake_ran_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, then = {"curate": {"min_side_px": 64}}, {"curate": {"min_side_px": 48}}
    _ran(tmp_path, "curate/0", now)
    made = _job("curate/0", "params changed", now, then)
    assert _reason(monkeypatch, tmp_path, made) == (
        "curate.min_side_px: 48 -> 64; made so already, not by Snakemake: `distillery trust`"
    )
    unknown = _job("curate/1", "params changed", now, then)  # no record, no manifest
    (line, _) = _lines(monkeypatch, tmp_path, unknown)
    assert line.endswith("  curate.min_side_px: 48 -> 64")


def test_what_snakemake_recorded_of_params_is_read() -> None:
    spec = importlib.util.spec_from_file_location("jobs", ROOT / "workflow/jobs.py")
    jobs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(jobs)
    old = {"'teacher/guided'", "{'seed': 0, 'evaluate': {'num_samples': 8}}", "<a b>"}
    changed = SimpleNamespace(params_changed=SimpleNamespace(only_old=old))
    assert jobs._before(changed) == {"seed": 0, "evaluate": {"num_samples": 8}}
    assert jobs._before(SimpleNamespace(params_changed=None)) == {}


def test_times_with_other_settings_stand_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("distill_unet/a", "distill_unet/b"):
        _ran(tmp_path, label, {"distill_unet.variants.x": {"steps": 4}})
    same = _job("distill_unet/a", AFTER, {"distill_unet.variants.x": {"steps": 4}})
    more = _job("distill_unet/b", AFTER, {"distill_unet.variants.x": {"steps": 400}})
    first, second, total = _lines(monkeypatch, tmp_path, same, more)
    assert " 60.0 s  " in first
    assert " 60.0 s*  " in second
    assert total.startswith("2 stages, at least 60.0 s on ")
    assert "(60.0 s of work in the last run), 1.0 KiB to write; 1 (*) ran with other " in total
    shown = plan.as_json(plan.plan(tmp_path))
    assert [row["settings_differ"] for row in shown["stages"]] == [False, True]
    assert (shown["total_s"], shown["num_other"], shown["num_unknown"]) == (60.0, 1, 0)
    assert _lines(monkeypatch, tmp_path, more)[-1] == (
        "1 stage; none ran here with these settings, so how long it will take is not known"
    )


@pytest.mark.parametrize(
    ("label", "key", "others"),
    [
        ("generate/unet/elr", "generate.num_samples", {"generate/unet/elr"}),
        ("distill_unet/elr", "distill_unet.training.batch_size", {"distill_unet/elr"}),
        ("distill_unet/elr", "seeds", {"distill_unet/elr"}),
        ("distill_unet/elr", "distill_unet.variants.elr.learning_rate", set()),
        ("profile", "distill_unet.variants.elr.steps", set()),
        ("ingest", "ingest.path", {"ingest", "curate/0"}),
        ("curate/0", "data.resolution_px", {"ingest", "curate/0", "generate/unet/elr",
                                            "distill_unet/elr", "profile"}),
    ],
)  # fmt: skip
def test_amounts_say_which_times_differ(label: str, key: str, others: set[str]) -> None:
    jobs = ("ingest", "curate/0", "generate/unet/elr", "distill_unet/elr", "profile")
    assert settings_differ({job: [key] if job == label else [] for job in jobs}) == others
