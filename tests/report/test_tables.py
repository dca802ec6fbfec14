import csv
from pathlib import Path

import pytest
from fake_run import make_run

from distillery.report import story, tables
from distillery.report.evidence import judged_on, read_committed, read_run

HEADER = "row,metric,unit,direction,paper,paper_pm,ours,std,ci_low,ci_high,n,seeds,setting,source"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("tables")
    make_run(root)
    return read_run(root / "metrics", "scenes", (0,)), judged_on(read_committed(root / "results"))


def test_table1_has_the_printed_values_beside_ours(results, tmp_path: Path):
    tables.write_csv(tmp_path / "t.csv", tables.elr_table1(results))
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == HEADER
    with (tmp_path / "t.csv").open() as file:
        rows = {(r["row"], r["metric"], r["setting"]): r for r in csv.DictReader(file)}
    elr = rows["elr", "fid", "scenes"]
    assert (elr["paper"], elr["ours"], elr["source"]) == ("45.0", "9.3", "measured")
    assert rows["elr", "fid", "scenes-full"]["seeds"] == "0 1 2"
    assert rows["teacher", "clip_score", "scenes"]["paper"] == "0.824"
    analytic = rows["elr", "params", "sd21-analytic"]
    assert (analytic["paper"], analytic["ours"]) == ("790", "788.273515")
    assert analytic["source"] == "counted"
    assert rows["svd_only", "fid", "scenes"]["paper"] == ""


def test_one_line_per_row_metric_and_setting(results):
    rows = tables.elr_table1(results)
    keys = [(row["row"], row["metric"], row["setting"]) for row in rows]
    assert len(keys) == len(set(keys))


def test_cost_tables_say_what_is_predicted(results):
    run, _ = results
    speed = tables.profile_table(run, tables.SPEED)
    assert {r["source"] for r in speed if r["metric"] == "memory_bytes"} == {"predicted"}
    assert {r["source"] for r in speed if r["metric"] == "latency_s"} == {"measured"}
    parameters = tables.profile_table(run, tables.PARAMETERS)
    assert {r["source"] for r in parameters} == {"counted"}
    assert {r["setting"] for r in parameters} == {"scenes", "sd21-analytic"}


def test_what_was_not_measured_is_an_empty_cell(tmp_path: Path):
    empty = read_run(tmp_path, "scenes", (0,))
    rows = tables.elr_table1([empty])
    assert rows
    assert {row["ours"] for row in rows} == {""}
    assert story.headline(empty) == "No student has been evaluated yet."


def test_the_headline_is_made_from_the_numbers(results):
    run, _ = results
    assert story.headline(run) == (
        "The student U-Net has 56% fewer parameters than its teacher and draws 61% of the shapes "
        "asked for; its teacher draws 74%."
    )
    assert story.certainty(run).startswith("The intervals do not overlap: 0.57 to 0.65")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1290.4, "1,290"), (0.7, "0.700"), (-16.31, "−16.3"), (0, "0"), (None, "—"), ("", "—")],
)
def test_numbers_have_three_digits(value, text: str):
    assert story.number(value) == text


def test_intervals_decide_the_digits():
    metric = {"value": 9.3412, "ci_low": 8.51, "ci_high": 10.13}
    assert (story.estimate(metric), story.interval(metric)) == ("9.3", "8.5 to 10.1")
    metric = {"value": 0.1104, "ci_low": 0.0991, "ci_high": 0.1212}
    assert story.estimate(metric) == "0.110"
    assert story.si(1_289_952_427) == "1,290M"
    assert story.si(402_128_732_160) == "402G"


def test_the_markdown_table_is_for_the_readme(results):
    lines = tables.markdown(results[1], {"kid": "KID ↓"}).splitlines()
    assert lines[0] == "| model | U-Net parameters | KID ↓ |"
    assert len({line.count("|") for line in lines}) == 1
    assert any(line.startswith("| ELR Stage I | 1.54M | 0.0") for line in lines)
