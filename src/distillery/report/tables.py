"""The papers' tables beside ours, as rows and as CSV.

In: results, full-size profiles and `papers.yaml`. Out: rows with the contract's columns, one per
(row, metric, setting). A value that is not there is an empty cell, never a zero.
"""

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.families import family_of
from distillery.families.names import UNCONTROLLED, label, takes_maps
from distillery.metrics.catalog import CATALOG
from distillery.report.evidence import Results
from distillery.report.prices import Cost

COLUMNS = (
    "row", "metric", "unit", "direction", "paper", "paper_pm", "ours", "std", "ci_low", "ci_high",
    "n", "seeds", "setting", "source",
)  # fmt: skip
PAPERS_FILE = Path(__file__).with_name("papers.yaml")
_NUMBERS = ("ours", "std", "ci_low", "ci_high")
_MEASURED = (*_NUMBERS, "n", "seeds", "source")

Row = dict[str, Any]


@functools.cache
def read_papers() -> dict[str, Any]:
    """The printed tables."""
    return yaml.safe_load(PAPERS_FILE.read_text(encoding="utf-8"))


def printed_table(
    name: str, all_results: Sequence[Results], full_size: Sequence[Results] = ()
) -> list[Row]:
    """A paper's table: its metrics, then ours, for every setting and variant; then full size.

    Variants of the table's family that the paper does not have follow its own.
    """
    printed = read_papers()[name]
    rows = []
    for results in all_results:
        for variant in table_variants(printed, results):
            for metric, about in printed["metrics"].items():
                row = _printed_cell(results, variant, metric, about, about.get("saving_over"))
                rows.append({**row, **_printed_words(printed, variant, metric)})
            rows += _own_rows(printed, results, variant)
    return rows + _full_size_rows(printed, full_size)


def _own_rows(printed: Mapping[str, Any], results: Results, variant: str) -> list[Row]:
    """Our metrics beside the printed ones."""
    return [
        _row(results, variant, metric.name, metric.unit, metric.direction)
        | _printed_words(printed, variant, metric.name)
        for metric in CATALOG.values()
        if metric.in_tables
        and metric.name not in printed["metrics"]
        and shows(printed["family"], metric.name)
        and results.metric(variant, metric.name)
    ]


def shows(family: str, metric: str) -> bool:
    """Whether a family's tables have a metric: who is given no map need not follow one."""
    return takes_maps(family) or not CATALOG[metric].follows_maps


def elr_table1(all_results: Sequence[Results], full_size: Sequence[Results] = ()) -> list[Row]:
    """Table 1 of ELR-Diffusion."""
    return printed_table("elr_table1", all_results, full_size)


def table_variants(printed: Mapping[str, Any], results: Results) -> list[str]:
    """The paper's rows, then what else was evaluated of the family, and of its teacher."""
    family = family_of(printed["family"])
    others = [v for v in results.variants() if v in family.shown.beside or family.owns(v)]
    return list(dict.fromkeys([*printed["rows"], *others]))


def _full_size_rows(printed: Mapping[str, Any], full_size: Sequence[Results]) -> list[Row]:
    """Costs at the paper's own architecture, where they were counted, predicted or measured."""
    rows = []
    for results in full_size:
        for variant, models in printed["counted_as"].items():
            model = next((m for m in models if m in results.profiled()), None)
            for metric, about in printed["metrics"].items() if model else ():
                baseline = _baseline(printed, about, results)
                row = _printed_cell(results, model, metric, about, baseline)
                if row["ours"] != "":
                    rows.append({**row, **_printed_words(printed, variant, metric)})
    return rows


def _baseline(printed: Mapping[str, Any], about: Mapping[str, Any], results: Results) -> str | None:
    """The model at full size that a saving is measured against."""
    models = printed["counted_as"].get(about.get("saving_over"), ())
    return next((model for model in models if model in results.profiled()), None)


def _printed_cell(
    results: Results, model: str, metric: str, about: Mapping[str, Any], baseline: str | None
) -> Row:
    """Our value for a printed column: a metric, or a sum of costs; a saving over `baseline`."""
    if "of" not in about:
        return _row(results, model, metric, about["unit"], about["direction"])
    parts = [_row(results, model, q, about["unit"], about["direction"]) for q in about["of"]]
    if any(part["ours"] == "" for part in parts):
        return {**parts[0], **dict.fromkeys(_MEASURED, "")}
    total = {**parts[0], **{k: sum(part[k] for part in parts) for k in _NUMBERS}}
    if "saving_over" in about:
        return _saving(total, baseline and results.metric(baseline, about["of"][0]))
    return _scaled(total, about["scale"])


def _saving(total: Row, base: Mapping[str, Any] | None) -> Row:
    """100 (1 - model / baseline), empty for the baseline itself and without one."""
    if not base or base["value"] == total["ours"]:
        return {**total, **dict.fromkeys(_MEASURED, "")}
    low, high = (100 * (1 - total[k] / base["value"]) for k in ("ci_high", "ci_low"))
    share = 100 * (1 - total["ours"] / base["value"])
    values = {"ours": share, "ci_low": low, "ci_high": high}
    return {**total, "std": 0.0, **{k: round(v, 4) for k, v in values.items()}}


def _printed_words(printed: Mapping[str, Any], variant: str, metric: str) -> Row:
    """Row and metric as the table calls them, and what the paper prints there."""
    paper = printed["rows"].get(variant, {})
    return {
        "row": row_name(variant, printed["family"]),
        "metric": metric,
        "paper": paper.get(metric, ""),
        "paper_pm": paper.get(f"{metric}_pm", ""),
    }


def profile_table(all_results: Sequence[Results], quantities: Mapping[str, Cost]) -> list[Row]:
    """Costs of every profiled model, at its own size and at full size, `quantities` of each."""
    return [
        _row(results, model, quantity, cost.unit, "down")
        for results in all_results
        for model in results.profiled()
        for quantity, cost in quantities.items()
        if results.metric(model, quantity)
    ]


def _row(results: Results, variant: str, metric: str, unit: str, direction: str) -> Row:
    row = dict.fromkeys(COLUMNS, "")
    row |= {"row": row_name(variant), "metric": metric, "unit": unit, "direction": direction,
            "setting": results.setting}  # fmt: skip
    if (ours := results.metric(variant, metric)) is None:
        return row
    return row | {
        "ours": ours["value"],
        "std": ours["std"],
        "ci_low": ours["ci_low"],
        "ci_high": ours["ci_high"],
        "n": ours["n"],
        "seeds": " ".join(map(str, ours["seeds"])),
        "source": ours["settings"].get("basis", "measured"),
    }


def _scaled(row: Row, scale: float) -> Row:
    return row | {k: round(row[k] / scale, 6) for k in _NUMBERS if row[k] != ""}


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Write rows with a header, the contract's if no other is given, and Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def pivot(rows: Sequence[Row], setting: str) -> dict[str, dict[str, Row]]:
    """{row: {metric: row}} of one setting, for the page."""
    table: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["setting"] == setting:
            table.setdefault(row["row"], {})[row["metric"]] = row
    return table


def row_name(variant: str, family: str = "unet") -> str:
    """A variant's name in a family's table (`elr`, `teacher`, `teacher_unguided`), and in those of
    all families, where only the U-Nets stand without their family's name (`control_elr`)."""
    has_maps = takes_maps(family)
    if variant == ("teacher/control_canny" if has_maps else "teacher/guided"):
        return "teacher"
    if variant == UNCONTROLLED and has_maps:
        return "teacher_uncontrolled"
    return variant.removeprefix(f"{family}/").replace("/", "_")


def row_label(variant: str, table: str = "elr_table1") -> str:
    """The paper's name for a variant, or ours."""
    printed = read_papers()[table]
    named = printed["rows"].get(variant)
    return named["label"] if named else label(variant, printed["family"])
