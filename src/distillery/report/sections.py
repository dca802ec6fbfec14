"""The sections of the page that are about one family of models each.

In: results, table rows, gallery, training histories. Out: dicts for the templates. Not here: the
CSV files, the layout, costs (`costs`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distillery.families import STUDENTS, Family
from distillery.families.names import UNCONTROLLED, label, takes_maps
from distillery.metrics import shape_probe
from distillery.metrics.catalog import CATALOG
from distillery.report import figures_training, story, tables
from distillery.report.evidence import Results
from distillery.report.gallery import family_strip

COMPACT_FROM = 5
STRIP_PROMPTS = 6


def family_sections(
    run: Results,
    committed: Results | None,
    full_size: Sequence[Results],
    rows: Mapping[str, Sequence[tables.Row]],
    gallery: Mapping[str, Any],
    histories: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """A section for each family that this run has, in the page's order."""
    return [
        _section(family, run, committed, full_size, rows, gallery, histories)
        for family in STUDENTS.values()
        if run.variants(family.name)
    ]


def _section(
    family: Family,
    run: Results,
    committed: Results | None,
    full_size: Sequence[Results],
    rows: Mapping[str, Sequence[tables.Row]],
    gallery: Mapping[str, Any],
    histories: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    all_results = [run, *([committed] if committed and committed.variants(family.name) else [])]
    own = {n: h for n, h in histories.items() if n.startswith(f"{family.name}/")}
    main = family.main_student(run.variants())
    return {
        "id": family.name,
        "title": family.texts.title,
        "lede": family.texts.lede,
        "takes_maps": family.takes_maps,
        "student": main,
        "tables": [
            _printed(name, all_results, full_size, rows[name]) for name in family.shown.tables
        ],
        "measured": [_measured(family, results) for results in reversed(all_results)],
        "reference": family.texts.compared,
        "strip": family_strip(gallery, family, STRIP_PROMPTS),
        "curves": figures_training.training_curves(own, main),
        "layer_terms": figures_training.layer_terms(own, main),
        **_extractor(all_results[0]),
    }


def _printed(
    name: str,
    all_results: Sequence[Results],
    full_size: Sequence[Results],
    rows: Sequence[tables.Row],
) -> dict[str, Any]:
    """A paper's table with a column per setting; where it is wide, the best setting only."""
    printed = tables.read_papers()[name]
    is_compact = len(printed["metrics"]) >= COMPACT_FROM
    own = [results.setting for results in (all_results[-1:] if is_compact else all_results)]
    sizes = [r.setting for r in full_size if any(row["setting"] == r.setting for row in rows)]
    pivots = {setting: tables.pivot(rows, setting) for setting in (*own, *sizes)}
    variants = [*printed["rows"], *_further(printed, all_results)]
    columns = {
        metric: [s for s in (*own, *(sizes if "of" in about else ())) if _has(pivots[s], metric)]
        for metric, about in printed["metrics"].items()
    }
    return {
        **printed,
        "name": name,
        "columns": columns,
        "variants": [_variant(v, name, printed, pivots) for v in variants],
        "about": [_about(results) for results in all_results if results.setting in own],
    }


def _further(printed: Mapping[str, Any], all_results: Sequence[Results]) -> list[str]:
    """The family's students that the paper's tables do not have; the teacher without control."""
    everywhere = {row for table in tables.read_papers().values() for row in table["rows"]}
    family = printed["family"]
    variants = [v for results in all_results for v in results.variants(family)]
    further = [v for v in dict.fromkeys(variants) if v not in everywhere]
    has_baseline = any(UNCONTROLLED in results.metrics for results in all_results)
    return [*further, *([UNCONTROLLED] if takes_maps(family) and has_baseline else [])]


def _has(pivot: Mapping[str, Mapping[str, tables.Row]], metric: str) -> bool:
    return any(cells.get(metric, {}).get("ours", "") != "" for cells in pivot.values())


def _variant(
    variant: str, table: str, printed: Mapping[str, Any], pivots: Mapping[str, Any]
) -> dict[str, Any]:
    paper, row = printed["rows"].get(variant, {}), tables.row_name(variant, printed["family"])
    return {
        "id": variant,
        "label": tables.row_label(variant, table),
        "paper": {m: paper.get(m) for m in printed["metrics"]},
        "paper_pm": {m: paper.get(f"{m}_pm") for m in printed["metrics"]},
        "cells": {setting: pivot.get(row, {}) for setting, pivot in pivots.items()},
    }


def _about(results: Results) -> dict[str, str]:
    count = len(results.seeds)
    seeds = f"{count} training seeds" if count > 1 else "one training seed"
    where = f"committed on {results.date}, {results.machine}" if results.date else "this run"
    return {"name": results.setting, "text": f"{where}, {seeds}"}


def _measured(family: Family, results: Results) -> dict[str, Any]:
    """Every metric of every model of the family, and of the teacher, in one setting."""
    printed = {"family": family.name, "rows": {family.shown.teacher: {}}}
    variants = [v for v in tables.table_variants(printed, results) if v in results.metrics]
    wanted = [m.name for m in CATALOG.values() if m.on_page and tables.shows(family.name, m.name)]
    names = [n for n in wanted if any(results.metric(v, n) for v in variants)]
    ceiling = {n: results.metric("teacher/guided", f"{n}_ceiling") for n in names}
    return {
        "about": _about(results),
        "probe": story.probe_line(results),
        "columns": [
            {"label": CATALOG[n].label, "direction": CATALOG[n].direction} for n in names
        ],
        "rows": [
            {"id": v, "label": label(v, family.name),
             "cells": [results.metric(v, n) for n in names]}
            for v in variants
        ]
        + ([{"id": "", "label": "Ceiling: real images through the VAE",
             "cells": list(ceiling.values())}] if any(ceiling.values()) else []),
    }  # fmt: skip


def _extractor(results: Results) -> dict[str, str]:
    for variant in results.variants():
        if fid := results.metric(variant, "fid"):
            settings = fid["settings"]
            probe = shape_probe.describe(settings)
            named = f"{settings['extractor']} ({probe})" if probe else settings["extractor"]
            about = f"{named}, {settings['resize']}, n = {fid['n']}"
            notes = "; ".join(settings["notes"])
            return {"extractor": about, "fid_notes": f"{notes[:1].upper()}{notes[1:]}."}
    return {"extractor": "not measured", "fid_notes": ""}


def family_cards(run: Results) -> list[dict[str, str]]:
    """What each family's main student gained and lost, in a line: for the first screen."""
    return [card for family in STUDENTS.values() if (card := _card(family, run))]


def _card(family: Family, run: Results) -> dict[str, str] | None:
    student = family.main_student(run.variants())
    if student is None:
        return None
    return {
        "id": family.name,
        "title": family.texts.title,
        "student": label(student),
        "cost": _cost_line(run, student, family),
        "quality": _quality_line(run, student, family.shown.teacher, family.shown.qualities),
    }


def _cost_line(run: Results, student: str, family: Family) -> str:
    for baseline in filter(None, (family.shown.cost_baseline, family.shown.teacher)):
        for name in family.shown.costs:
            mine, theirs = run.metric(student, name), run.metric(baseline, name)
            if mine and theirs and theirs["value"]:
                return f"{story.change(mine['value'] / theirs['value'] - 1)} {SHORT[name]}"
    return ""


def _quality_line(run: Results, student: str, teacher: str, names: Sequence[str]) -> str:
    for name in names:
        mine, theirs = run.metric(student, name), run.metric(teacher, name)
        if mine and theirs:
            return (
                f"{CATALOG[name].label} {story.estimate(mine)} ({label(teacher)} "
                f"{story.estimate(theirs)})"
            )
    return ""


SHORT = {
    "parameters_total": "parameters",
    "parameters_unet": "U-Net parameters",
    "parameters_adapter": "ControlNet parameters",
    "parameters_in_optimiser": "trained parameters",
    "latency_s": "time per evaluation",
    "train_step_s": "time per training step",
    "train_memory_bytes": "training memory",
}
