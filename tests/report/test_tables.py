import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import make_run

from distillery.report import headline, story, tables
from distillery.report.evidence import judged_on, read_committed, read_run
from distillery.report.full_size import own_size, read_full_size
from distillery.report.markdown import markdown
from distillery.report.prices import PARAMETERS, SPEED

HEADER = "row,metric,unit,direction,paper,paper_pm,ours,std,ci_low,ci_high,n,seeds,setting,source"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("tables")
    make_run(root)
    run = read_run(root / "metrics", "scenes", (0,))
    committed = judged_on(read_committed(root / "results"))
    return own_size(run), committed, read_full_size(run, root / "results")


def _cells(table: str, results) -> dict:
    *own, full_size = results
    rows = tables.printed_table(table, own, full_size)
    keys = [(row["row"], row["metric"], row["setting"]) for row in rows]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, rows, strict=True))


def test_table1_has_the_printed_values_beside_ours(results, tmp_path: Path):
    tables.write_csv(tmp_path / "t.csv", tables.elr_table1(results[:2], results[2]))
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


@pytest.mark.parametrize("table", list(tables.read_papers()))
def test_one_line_per_row_metric_and_setting(results, table: str):
    cells = _cells(table, results)
    rows = {row for row, _, _ in cells}
    assert {tables.row_name(v, tables.read_papers()[table]["family"])
            for v in tables.read_papers()[table]["rows"]} <= rows  # fmt: skip


def test_control_tables_count_unet_and_adapter(results):
    cells = _cells("elr_table2", results)
    row = cells["uni_controlnet", "params", "scenes"]
    assert (row["paper"], row["ours"], row["source"]) == (1271, 5.593792, "counted")
    assert cells["uni_controlnet", "params", "sd15-analytic"]["ours"] == 1271.425
    measured = cells["uni_controlnet", "memory", "sd15-cuda"]
    assert (measured["paper"], measured["ours"], measured["source"]) == (20, 20.0, "measured")
    assert cells["elr_dense", "clip_score", "scenes"]["paper"] == ""
    assert _cells("elr_table3", results)["elr", "time", "sd15-cuda"]["ours"] == 0.3


def test_control_is_shown_against_the_teacher_without_any(results):
    for table in ("elr_table2", "elr_table3"):
        assert _cells(table, results)["teacher_uncontrolled", "edge_f1", "scenes"]["ours"] == 0.12
    row = _cells("controlnet", results)["teacher_uncontrolled", "edge_f1", "scenes"]
    assert (row["ours"], row["paper"]) == (0.12, "")
    assert ("teacher", "edge_f1", "scenes") not in _cells("elr_table1", results)
    assert tables.row_label("teacher/guided", "elr_table2") == "Teacher, uncontrolled"


def test_the_controlnet_table_has_both_references_and_the_printed_spread(results):
    cells = _cells("controlnet", results)
    row = cells["loha", "ssim_teacher", "scenes"]
    assert (row["paper"], row["paper_pm"], row["direction"]) == (0.1341, 0.00483, "up")
    assert row["ours"] == pytest.approx(0.155)
    assert cells["teacher", "fid_teacher", "scenes"]["ours"] == pytest.approx(3.5)
    assert cells["loha", "lpips_pair", "scenes-full"]["paper"] == ""
    assert cells["loha", "params", "scenes"]["ours"] == 0.27


def test_the_memory_table_has_savings_and_says_what_is_predicted(results):
    cells = _cells("guidance_memory", results)
    assert cells["lora_distill", "memory", "sd15-cuda"]["ours"] == 9.8
    saving = cells["lora_distill", "saving", "sd15-cuda"]
    assert (saving["paper"], saving["ours"], saving["unit"]) == (51.0, 51.0, "%")
    assert cells["full_distill", "saving", "sd15-cuda"]["ours"] == pytest.approx(-16.5)
    assert cells["lora_finetune", "memory", "sd15-analytic"]["source"] == "predicted"
    assert ("lora_finetune", "saving", "sd15-analytic") not in cells
    assert cells["full_finetune", "saving", "scenes"]["ours"] == ""


def test_cost_tables_say_what_is_predicted(results):
    run, _, full_size = results
    speed = tables.profile_table([run], SPEED)
    assert {r["source"] for r in speed if r["metric"] == "memory_bytes"} == {"predicted"}
    assert {r["source"] for r in speed if r["metric"] == "latency_s"} == {"measured"}
    parameters = tables.profile_table([run, *full_size], PARAMETERS)
    assert {r["source"] for r in parameters} == {"counted"}
    assert {r["setting"] for r in parameters} == {"scenes", "sd15-analytic", "sd21-analytic"}


def test_what_was_not_measured_is_an_empty_cell(tmp_path: Path):
    empty = read_run(tmp_path, "scenes", (0,))
    rows = tables.elr_table1([empty])
    assert rows
    assert {row["ours"] for row in rows} == {""}
    assert headline.headline(empty) == "No student has been evaluated yet."


def test_the_headline_is_made_from_the_numbers(results, tmp_path: Path):
    make_run(tmp_path, families=False)
    run = read_run(tmp_path / "metrics", "scenes", (0,))
    assert headline.headline(run) == (
        "The student U-Net has 56% fewer parameters than its teacher and draws 61% of the shapes "
        "asked for; its teacher draws 74%."
    )
    said = headline.certainty(run)
    assert said.startswith("The difference is more than chance, −0.")
    assert ": 0.57 to 0.65 for the student, " in said
    assert said.endswith(", one training seed).")
    assert headline.headline(results[0]) == (
        "The whole student has 61% fewer parameters than its teacher and draws 53% of the shapes "
        "asked for; its teacher draws 69%."
    )


def _scaled(folder: Path, name: str, factor: float) -> None:
    """Multiply a metric of all models below `folder`."""
    for path in folder.glob("*/*.json"):
        values = json.loads(path.read_text())
        if (metric := values["metrics"].get(name)) is not None:
            values["metrics"][name] |= {
                k: factor * metric[k] for k in ("value", "ci_low", "ci_high")
            }
            path.write_text(json.dumps(values))


def test_the_headline_passes_over_what_the_teacher_can_not_do(tmp_path: Path):
    """As on photos, whose teacher follows no map and draws no shape that a reader knows."""
    make_run(tmp_path)
    for name in ("reader_shape", "edge_f1"):
        _scaled(tmp_path / "metrics", name, 0)
    shutil.rmtree(tmp_path / "metrics/whole")
    run = read_run(tmp_path / "metrics", "folder", (0,))
    assert headline.headline(run) == (
        "The student U-Net has 56% fewer parameters than its teacher, and its predictions differ "
        "from its teacher's by 11% of their energy."
    )
    uncounted = replace(run, profile={"metrics": {}})
    assert headline.headline(uncounted) == (
        "The student U-Net: its predictions differ from its teacher's by 11% of their energy."
    )


@pytest.mark.parametrize(
    ("family", "start"),
    [
        (
            "controlnet",
            "“LoHa” has 84% fewer ControlNet or adapter parameters than its teacher",
        ),
        ("guidance", "“LoRA distillation” takes 68% less training memory than Full fine-tuning"),
        ("control", "“ELR adapter” has 86% fewer trained parameters than Uni-ControlNet"),
    ],
)
def test_every_family_alone_has_a_headline(tmp_path: Path, family: str, start: str):
    make_run(tmp_path)
    for other in {path.parent.name for path in (tmp_path / "metrics").glob("*/*.json")}:
        if other not in ("teacher", family):
            shutil.rmtree(tmp_path / "metrics" / other)
    assert headline.headline(read_run(tmp_path / "metrics", "folder", (0,))).startswith(start)


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
    lines = markdown(results[1], {"kid": "KID ↓"}).splitlines()
    assert lines[0] == "| model | U-Net parameters | KID ↓ |"
    assert len({line.count("|") for line in lines}) == 1
    assert any(line.startswith("| ELR Stage I | 1.54M | 0.0") for line in lines)
