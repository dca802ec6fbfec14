"""What `dvc metrics` and `dvc plots` read is the run's own numbers."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import Folders, make_run

from distillery.report.evidence import read_run
from distillery.report.for_dvc import METRICS, QUALITY, TRAINING, write_for_dvc


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_run(tmp_path_factory.mktemp("run"))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_are_those_of_the_metrics_files(folders: Folders, tmp_path: Path) -> None:
    run = read_run(folders.metrics, "scenes", (0,))
    write_for_dvc(tmp_path, run, {})
    found = json.loads((tmp_path / METRICS).read_text())
    own = json.loads((folders.metrics / "unet/elr.json").read_text())["metrics"]
    deciding = ("reader_shape", "prediction_distance")
    assert found["unet/elr"] == {name: own[name]["value"] for name in deciding}
    assert list(found) == [
        "control/elr", "controlnet/loha", "guidance/lora_distill", "unet/elr", "whole/student",
    ]  # fmt: skip
    assert sum(len(numbers) for numbers in found.values()) == 10
    rows = {row["model"]: row for row in _rows(tmp_path / QUALITY)}
    assert float(rows["unet/elr"]["clip_score"]) == own["clip_score"]["value"]
    size = run.metric("unet/elr", "parameters_total")["value"]
    assert float(rows["unet/elr"]["parameters_total"]) == size
    lost = replace(run, profile={})
    write_for_dvc(tmp_path, lost, {})
    assert {row["parameters_total"] for row in _rows(tmp_path / QUALITY)} == {""}


def test_curves_are_means_over_seeds(folders: Folders, tmp_path: Path) -> None:
    seeds = {
        seed: {"train": [], "val": [{"step": 0, "loss": 4.0 + shift}, {"step": 9, "loss": shift}]}
        for seed, shift in (("0", 1.0), ("1", 2.0))
    }
    run = read_run(folders.metrics, "scenes", (0,))
    write_for_dvc(tmp_path, run, {"unet/elr": {"seeds": seeds}})
    assert _rows(tmp_path / TRAINING / "unet_elr.csv") == [
        {"step": "0", "val_loss": "5.5"}, {"step": "9", "val_loss": "1.5"},
    ]  # fmt: skip


def test_a_run_without_validation_has_an_empty_curve(folders: Folders, tmp_path: Path) -> None:
    run = read_run(folders.metrics, "scenes", (0,))
    write_for_dvc(tmp_path, run, {"unet/elr": {"seeds": {"0": {"train": []}}}})
    assert _rows(tmp_path / TRAINING / "unet_elr.csv") == []
