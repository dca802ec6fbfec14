"""What a trial run of a few images says of itself: no more than it knows."""

import re

import pytest
from fake_run import metric

from distillery.report import costs, headline, overview, story
from distillery.report.evidence import Results
from distillery.report.figures import quality_against_cost
from distillery.report.figures_training import training_curves

SETS = {"fid": "jackknife over image blocks", "kid": "disjoint subsets"}


def _of(name: str, n: int, value: float = 0.5, spread: float = 0.1) -> dict:
    settings = {"interval": SETS.get(name, "bootstrap over images")}
    return {**metric(value, spread, [0]), "n": n, "settings": settings}


def _run(n: int, costs_s: float = 0.02, **metrics: dict[str, float]) -> Results:
    """`metrics`: {model: {metric: value}} of `n` images each."""
    found = {
        name: {
            "metrics": {k: _of(k, n, v, 0.1 * bool(v)) for k, v in values.items()},
            "skipped": {},
        }
        for name, values in metrics.items()
    }
    timed = {
        f"{name}/latency_s": _of("latency_s", 1, costs_s * (i + 1), 0.0)
        for i, name in enumerate([*metrics, "teacher"])
    }
    return Results("this run", "scenes", (0,), found, {"device": "cpu", "metrics": timed})


@pytest.mark.parametrize("name", SETS)
def test_distances_of_small_sets_have_no_interval(name: str):
    assert story.interval(_of(name, 8)) == "too few images"
    assert "too few" not in story.interval(_of(name, 80))
    assert "too few" not in story.interval(_of("reader_shape", 8))


def test_a_row_of_a_table_says_so_too():
    row = {"metric": "fid_extrapolated", "value": 16.0, "ci_low": -56.0, "ci_high": 83.0, "n": 8}
    assert story.interval(row) == "too few images"
    assert story.interval(row | {"n": 128}) == "−56 to 83"
    assert "too few" not in story.interval(row | {"metric": "parameters_total", "n": 1})


def test_what_says_nothing_does_not_compare():
    both = {"teacher/guided": {"kid": 0.5}, "unet/elr": {"kid": 0.6}}
    assert headline.first_quality(_run(80, **both), "unet/elr", ["kid"]) == "kid"
    assert headline.first_quality(_run(8, **both), "unet/elr", ["kid"]) is None
    assert headline.main_quality(_run(8, **both), "unet/elr") is None


def test_a_student_without_its_teacher_says_what_is_missing():
    (family,) = overview.gains(_run(80, **{"control/elr": {"edge_f1": 0.4}}))
    (row,) = family["rows"]
    assert row["alone"] == "Uni-ControlNet, which it replaces, was not evaluated"
    both = {"control/elr": {"edge_f1": 0.4}, "control/uni_controlnet": {"lpips": 0.4}}
    rows = {row["id"]: row for row in overview.gains(_run(80, **both))[0]["rows"]}
    assert rows["control/elr"]["alone"] == "no metric tells it from Uni-ControlNet here"
    assert rows["control/uni_controlnet"]["alone"] == "the others of its family replace it"


def test_a_share_that_is_the_same_for_all_is_drawn_on_its_whole_scale():
    both = {"teacher/guided": {"edge_f1": 0.0}, "unet/elr": {"edge_f1": 0.0}}
    drawing = quality_against_cost(_run(8, **both), "edge_f1", "latency_s", list(both), "unet/elr")
    assert drawing
    assert ">1.0<" in drawing
    assert "−0.0" not in drawing


def test_ticks_are_whole_steps():
    history = {"step": 0, "loss": 1.0}
    training = {
        "settings": {},
        "seeds": {"0": {"train": [{**history, "step": i} for i in range(5)], "val": []}},
    }
    drawing = training_curves({"unet/elr": training}, "unet/elr")
    assert drawing
    ticks = re.findall(r">(\d+(?:\.\d+)?)</text>", drawing)
    assert {"1", "2", "3", "4"} <= set(ticks)
    assert not {"0.8", "1.6", "2.4"} & set(ticks)


def test_a_note_promises_no_range_that_is_not_shown():
    run = _run(8, **{"unet/elr": {"edge_f1": 0.0}})
    (table,) = costs.cost_tables(run, [])
    assert table["note"].startswith("Timed once on cpu.")
    run.profile["metrics"]["unet/elr/latency_s"]["ci_high"] = 1.0
    (table,) = costs.cost_tables(run, [])
    assert table["note"].startswith("Median of repeated runs, with the fastest and the slowest, on")


def test_bytes_are_in_one_unit():
    metrics = {"value": 6.019e9}, {"value": 11.6e9}
    assert [story.pretty("memory_bytes", m) for m in metrics] == ["6.02 GB", "11.6 GB"]
