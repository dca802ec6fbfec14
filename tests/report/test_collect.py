import json
from pathlib import Path

import pytest
from fake_run import make_run

from distillery.commands.collect import collect_results
from distillery.core.errors import DistilleryError
from distillery.report.evidence import read_committed

ROOT = Path(__file__).resolve().parents[2]
SAID = {"preset": "scenes", "machine": "2 cores", "date": "2026-03-04"}


def test_a_run_becomes_one_file_that_the_report_reads(tmp_path: Path):
    folders = make_run(tmp_path, with_committed=False)
    path, _ = collect_results(ROOT / "params.yaml", folders.metrics, folders.results, **SAID)
    assert path.name == "2026-03-04-scenes.json"
    (results,) = read_committed(folders.results)
    assert (results.setting, results.date, results.machine) == ("scenes", "2026-03-04", "2 cores")
    assert results.metric("unet/elr", "kid")["value"] == 0.055
    assert results.metric("teacher/guided", "parameters_unet")["value"] == 3_493_792
    record = json.loads(path.read_text())
    assert record["versions"]["python"]
    assert len(record["params_fingerprint"]) == 64


def test_a_name_that_the_params_do_not_have_is_left_out(tmp_path: Path, monkeypatch):
    folders = make_run(tmp_path, with_committed=False)
    assert folders.metrics.name == "metrics"
    of_an_earlier_run = folders.metrics / "unet/mine.json"
    of_an_earlier_run.write_text((folders.metrics / "unet/elr.json").read_text())
    monkeypatch.chdir(folders.metrics.parent)
    path, run = collect_results(ROOT / "params.yaml", Path("metrics"), folders.results, **SAID)
    assert "unet/elr" in run.metrics
    assert not {"unet/mine"} & {*run.metrics, *json.loads(path.read_text())["metrics"]}


def test_values_of_images_go_beside_and_are_read_again(tmp_path: Path):
    folders = make_run(tmp_path, with_committed=False)
    path, _ = collect_results(ROOT / "params.yaml", folders.metrics, folders.results, **SAID)
    assert "per_image" not in json.loads(path.read_text())["metrics"]["control/elr"]
    (results,) = read_committed(folders.results)
    keys, values = results.per_image("control/elr", "edge_f1")
    assert (len(keys), list(values), len(values["0"])) == (40, ["0"], 40)
    assert results.per_image("unet/elr", "kid") is None


def test_other_seeds_than_the_params_say_are_refused(tmp_path: Path):
    folders = make_run(tmp_path, with_committed=False)
    full = ROOT / "presets" / "scenes-full.yaml"
    with pytest.raises(DistilleryError, match="other seeds"):
        collect_results(full, folders.metrics, folders.results, **SAID)
    with pytest.raises(DistilleryError, match="no metrics files"):
        collect_results(full, tmp_path / "nothing", folders.results, **SAID)
