"""Quality against latency is drawn where students differ in it, and joins those of one rule."""

import re
from dataclasses import replace

from fake_run import metric

from distillery.report.evidence import Results
from distillery.report.figures_latency import latency_figures, series

SEEDS = [0, 1, 2]


def run_of(latencies_ms: dict[str, float]) -> Results:
    metrics = {
        f"unet/{name}": {"metrics": {"prediction_distance": metric(1 / ms, 0.001, SEEDS)}}
        for name, ms in latencies_ms.items()
    }
    costs = {f"unet/{name}/latency_s": timed(ms / 1e3) for name, ms in latencies_ms.items()}
    return Results("this run", "scenes", (0,), metrics, {"metrics": costs})


def timed(seconds: float) -> dict:
    return {**metric(seconds, 0.1 * seconds, SEEDS), "settings": {"quartiles": [seconds, seconds]}}


def test_nothing_is_drawn_where_latencies_do_not_differ():
    assert latency_figures(run_of({"elr": 30.0})) == []
    assert latency_figures(run_of({"elr": 30.0, "svd_only": 32.0})) == []


def test_a_chart_for_each_measured_quality():
    run = run_of({"elr": 30.0, "planned": 15.0})
    (drawing,) = latency_figures(run)
    assert "against latency" in drawing
    for words in ("ELR Stage I", "Planned for latency", "time per evaluation, ms"):
        assert words in drawing
    assert ">teacher<" not in drawing
    with_teacher = replace(
        run, profile={"metrics": {**run.profile["metrics"], "teacher/latency_s": timed(0.04)}}
    )
    assert ">teacher<" in latency_figures(with_teacher)[0]
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]", drawing)  # colours are the page's


def test_students_of_one_rule_are_one_line():
    run = run_of(
        {"planned_75": 24, "planned_50": 16, "removal_75": 25, "removal_50": 15, "elr": 30}
    )
    (drawing,) = latency_figures(run)
    assert drawing.count(">Planned for latency<") == drawing.count(">Blocks removed<") == 1
    named = [type("Point", (), {"variant": v, "latency": {"value": i}})()
             for i, v in enumerate(("unet/a_75", "unet/b", "unet/a_50"))]  # fmt: skip
    assert {name: len(points) for name, points in series(named).items()} == {
        "unet/a": 2, "unet/b": 1,
    }  # fmt: skip
