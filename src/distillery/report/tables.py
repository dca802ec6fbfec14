"""The papers' tables beside ours, as rows and as CSV.

In: results and `papers.yaml`. Out: rows with the contract's columns, one per (row, metric,
setting). A value that is not there is an empty cell, never a zero.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.report import story
from distillery.report.evidence import Results, label

COLUMNS = (
    "row", "metric", "unit", "direction", "paper", "paper_pm", "ours", "std", "ci_low", "ci_high",
    "n", "seeds", "setting", "source",
)  # fmt: skip
PAPERS_FILE = Path(__file__).with_name("papers.yaml")
MILLION = 1e6
# Ours beside the paper's metrics: (direction, unit).
OWN_METRICS = {
    "fid_extrapolated": ("down", ""),
    "kid": ("down", ""),
    "prediction_distance": ("down", "of the teacher's energy"),
    "kid_teacher": ("down", ""),
    "fid_teacher": ("down", ""),
    "psnr": ("up", "dB"),
    "ssim": ("up", ""),
    "reader_colour": ("up", ""),
    "reader_shape": ("up", ""),
    "reader_pair": ("up", ""),
    "reader_background": ("up", ""),
}
PARAMETERS = {
    "parameters_total": "", "parameters_unet": "", "parameters_adapter": "",
    "parameters_requires_grad": "", "parameters_in_optimiser": "", "bytes_on_disk": "B",
    "macs": "MAC",
}  # fmt: skip
SPEED = {"latency_s": "s", "train_step_s": "s", "memory_bytes": "B", "train_memory_bytes": "B"}
ANALYTIC = {"teacher/guided": "sd21/dense", "unet/standard_no_kd": "sd21/dense"}

Row = dict[str, Any]


def read_papers() -> dict[str, Any]:
    """The printed tables."""
    return yaml.safe_load(PAPERS_FILE.read_text(encoding="utf-8"))


def elr_table1(all_results: Sequence[Results]) -> list[Row]:
    """Table 1 of ELR-Diffusion: the paper's metrics, then ours, for every setting and variant."""
    printed = read_papers()["elr_table1"]
    rows = []
    for results in all_results:
        variants = [*printed["rows"], *(v for v in results.variants() if v not in printed["rows"])]
        for variant in variants:
            paper = printed["rows"].get(variant, {})
            for name, about in printed["metrics"].items():
                rows.append(_paper_row(results, variant, name, about, paper.get(name)))
            for name, (direction, unit) in OWN_METRICS.items():
                if results.metric(variant, name):
                    rows.append(_row(results, variant, name, unit, direction))
    return rows + _analytic_rows(all_results, printed)


def _paper_row(results: Results, variant: str, name: str, about: dict, paper: float | None) -> Row:
    if name == "params":
        row = _row(results, variant, "parameters_total", about["unit"], about["direction"])
        return {**_in_millions(row), "metric": "params", "paper": _cell(paper)}
    row = _row(results, variant, name, about["unit"], about["direction"])
    return {**row, "paper": _cell(paper)}


def _analytic_rows(all_results: Sequence[Results], printed: dict) -> list[Row]:
    """The paper's own architecture, counted without weights."""
    about, rows = printed["metrics"]["params"], []
    for variant, paper in printed["rows"].items():
        model = ANALYTIC.get(variant, "sd21/low_rank")
        row = _row(all_results[0], model, "parameters_total", about["unit"], about["direction"])
        if row["ours"] != "":
            rows.append(
                {**_in_millions(row), "row": row_name(variant), "metric": "params",
                 "paper": _cell(paper["params"]), "setting": "sd21-analytic"}
            )  # fmt: skip
    return rows


def profile_table(results: Results, quantities: dict[str, str]) -> list[Row]:
    """Costs of every profiled model: `PARAMETERS` or `SPEED`."""
    names = results.profile.get("metrics", {})
    models = list(dict.fromkeys(name.rpartition("/")[0] for name in sorted(names)))
    rows = []
    for model in models:
        for quantity, unit in quantities.items():
            if results.metric(model, quantity):
                setting = "sd21-analytic" if model.startswith("sd21/") else results.setting
                rows.append({**_row(results, model, quantity, unit, "down"), "setting": setting})
    return rows


def _row(results: Results, variant: str, metric: str, unit: str, direction: str) -> Row:
    row = dict.fromkeys(COLUMNS, "")
    row |= {"row": row_name(variant), "metric": metric, "unit": unit, "direction": direction,
            "setting": results.setting}  # fmt: skip
    if (found := results.metric(variant, metric)) is None:
        return row
    return row | {
        "ours": found["value"],
        "std": found["std"],
        "ci_low": found["ci_low"],
        "ci_high": found["ci_high"],
        "n": found["n"],
        "seeds": " ".join(map(str, found["seeds"])),
        "source": found["settings"].get("basis", "measured"),
    }


def _in_millions(row: Row) -> Row:
    scaled = ("ours", "std", "ci_low", "ci_high")
    return row | {k: round(row[k] / MILLION, 6) for k in scaled if row[k] != ""}


def _cell(value: float | None) -> float | str:
    return "" if value is None else value


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows with the contract's header, Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def pivot(rows: Sequence[Row], setting: str) -> dict[str, dict[str, Row]]:
    """{row: {metric: row}} of one setting, for the page."""
    table: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["setting"] == setting:
            table.setdefault(row["row"], {})[row["metric"]] = row
    return table


def row_name(variant: str) -> str:
    """A variant's name in the tables: `elr`, `teacher`, `teacher_unguided`, `sd21_dense`."""
    if variant == "teacher/guided":
        return "teacher"
    return variant.removeprefix("unet/").replace("/", "_")


def row_label(variant: str) -> str:
    """The paper's name for a variant, or ours."""
    printed = read_papers()["elr_table1"]["rows"].get(variant)
    return printed["label"] if printed else label(variant)


def markdown(results: Results, metrics: Mapping[str, str]) -> str:
    """A Markdown table of one run, for a README: {metric: column title}, values with intervals."""
    lines = [
        f"| model | U-Net parameters | {' | '.join(metrics.values())} |",
        "|---|---:|" + "---:|" * len(metrics),
    ]
    for variant in results.variants():
        cells = [_markdown_cell(results.metric(variant, name)) for name in metrics]
        size = results.metric(variant, "parameters_unet")
        count = f"{size['value'] / MILLION:.2f}M" if size else "—"
        lines.append(f"| {label(variant)} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown_cell(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return "—"
    return f"{story.estimate(metric)} ({story.interval(metric)})"
