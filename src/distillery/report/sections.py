"""What the page of one family of models is made of.

In: results, table rows, gallery, training histories. Out: dicts for the templates. Not here: the
files of the tables, the layout, costs (`costs`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillery.families import STUDENTS, Family
from distillery.families.names import UNCONTROLLED, label, takes_maps
from distillery.metrics import shape_probe
from distillery.metrics.catalog import CATALOG
from distillery.report import figures_training, story, tables
from distillery.report.evidence import Results
from distillery.report.figures_latency import FAMILY as LATENCY_FAMILY
from distillery.report.figures_latency import latency_figures
from distillery.report.for_dvc import losses_path
from distillery.report.gallery import family_strip

STRIP_PROMPTS = 6


@dataclass(frozen=True)
class Known:
    """All that the pages draw on.

    `of_latency` compares students at equal latency, `rows` are those of the printed tables,
    `histories` those of the trainings.
    """

    run: Results
    committed: Results | None
    of_latency: Results | None
    full_size: Sequence[Results]
    rows: Mapping[str, Sequence[tables.Row]]
    gallery: Mapping[str, Any]
    histories: Mapping[str, Mapping[str, Any]]
    plots: Mapping[str, str]

    def in_tables(self, family: str) -> list[Results]:
        """This run, then the committed results where they have the family."""
        has = self.committed is not None and self.committed.variants(family)
        return [self.run, *([self.committed] if has else [])]


def family_sections(known: Known) -> list[dict[str, Any]]:
    """A page for each family that this run has, in the menu's order."""
    return [_section(f, known) for f in STUDENTS.values() if known.run.variants(f.name)]


def _section(family: Family, known: Known) -> dict[str, Any]:
    run = known.run
    own = {n: h for n, h in known.histories.items() if n.startswith(f"{family.name}/")}
    main = family.main_student(run.variants())
    committed = known.in_tables(family.name)[1:]
    return {
        "id": family.name,
        "title": family.texts.title,
        "menu": family.texts.menu,
        "lede": family.texts.lede,
        "takes_maps": family.takes_maps,
        "student": main,
        "measured": _measured(family, run),
        "committed": _measured(family, committed[0]) if committed else None,
        "tables": [_printed(name, known) for name in family.shown.tables],
        "plots": _plots(family, known.plots),
        "latency": _latency(known) if family.name == LATENCY_FAMILY else [],
        "reference": family.texts.compared,
        "strip": family_strip(known.gallery, family, STRIP_PROMPTS),
        "curves": figures_training.training_curves(own, main),
        "losses": {label(variant): losses_path(variant) for variant in own},
        "layer_terms": figures_training.layer_terms(own, main),
        "cards": {label(v): f"cards/{v}.md" for v in run.variants(family.name)},
        **_extractor(run),
    }


def _latency(known: Known) -> list[dict[str, Any]]:
    """Quality against latency, in this run and in the committed comparison."""
    drawn = [
        {"about": _about(results), "figures": latency_figures(results)}
        for results in (known.run, known.of_latency)
        if results
    ]
    return [one for one in drawn if one["figures"]]


def _plots(family: Family, plots: Mapping[str, str]) -> list[str]:
    """The family's charts: every quality against what says most of the cost."""
    own = {key.split()[2]: [] for key in plots if key.split()[0] == family.name}
    for key, drawing in plots.items():
        if key.split()[0] == family.name:
            own[key.split()[2]].append(drawing)
    return next(iter(own.values()), [])


def _printed(name: str, known: Known) -> dict[str, Any]:
    """A paper's table: per cell this run's value, and what stands beside it."""
    printed = tables.read_papers()[name]
    run, *others = known.in_tables(printed["family"])
    rows = known.rows[name]
    sizes = [r.setting for r in known.full_size if any(r.setting == row["setting"] for row in rows)]
    beside = [*(results.setting for results in others), *sizes]
    pivots = {setting: tables.pivot(rows, setting) for setting in (run.setting, *beside)}
    variants = [
        _variant(v, name, printed, pivots, run.setting)
        for v in (*printed["rows"], *_further(printed, [run, *others]))
    ]
    return {
        **printed,
        "name": name,
        "beside": {
            metric: [s for s in beside if s not in sizes or "of" in about]
            for metric, about in printed["metrics"].items()
        },
        "variants": sorted(variants, key=lambda variant: not variant["is_own"]),
        "about": [_about(results) for results in others],
    }


def _further(printed: Mapping[str, Any], all_results: Sequence[Results]) -> list[str]:
    """The family's students that the paper's tables do not have; the teacher without control."""
    everywhere = {row for table in tables.read_papers().values() for row in table["rows"]}
    family = printed["family"]
    variants = [v for results in all_results for v in results.variants(family)]
    further = [v for v in dict.fromkeys(variants) if v not in everywhere]
    has_baseline = any(UNCONTROLLED in results.metrics for results in all_results)
    return [*further, *([UNCONTROLLED] if takes_maps(family) and has_baseline else [])]


def _variant(
    variant: str, table: str, printed: Mapping[str, Any], pivots: Mapping[str, Any], own: str
) -> dict[str, Any]:
    paper, row = printed["rows"].get(variant, {}), tables.row_name(variant, printed["family"])
    cells = {setting: pivot.get(row, {}) for setting, pivot in pivots.items()}
    return {
        "id": variant,
        "label": tables.row_label(variant, table),
        "paper": {m: paper.get(m) for m in printed["metrics"]},
        "paper_pm": {m: paper.get(f"{m}_pm") for m in printed["metrics"]},
        "cells": cells,
        "own": cells[own],
        "is_own": any(cell["ours"] != "" for cell in cells[own].values()),
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
    names.sort(key=lambda n: (*family.shown.qualities, n).index(n))
    ceiling = {n: results.metric("teacher/guided", f"{n}_ceiling") for n in names}
    return {
        "about": _about(results),
        "probe": story.probe_line(results),
        "columns": [
            {"name": n, "label": CATALOG[n].label, "direction": CATALOG[n].direction}
            for n in names
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
