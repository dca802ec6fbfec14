"""Everything the report is made of, gathered from a run's folders.

In: the folders that earlier stages wrote. Out: `index.html`, `pages/*.html`, `claims.json`,
`params.json`, `cards/` and `tables/` in one folder. What an earlier stage did not make is left out
and said to be missing; it is never invented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core.artifacts import (
    find_artifacts,
    made_with,
    read_json,
    read_manifest,
)
from distillery.families import STUDENTS
from distillery.families.names import label
from distillery.report import (
    cards,
    condition_maps,
    costs,
    downloads,
    figures_training,
    ledger,
    overview,
    prices,
    search,
    sections,
    tables,
)
from distillery.report.claims import judge_all
from distillery.report.evidence import (
    OF_LATENCY,
    Results,
    judged_on,
    read_committed,
    read_run,
)
from distillery.report.for_dvc import write_for_dvc
from distillery.report.full_size import own_size, read_full_size
from distillery.report.gallery import read_gallery
from distillery.report.page import write_pages
from distillery.report.pictures import read_rejected

PRINTED = tuple(name for family in STUDENTS.values() for name in family.shown.tables)


@dataclass(frozen=True)
class Folders:
    """Where a run's artefacts are; `conditions` may be missing."""

    curated: Path
    selection: Path
    init: Path
    models: Path
    samples: Path
    metrics: Path
    results: Path
    conditions: Path | None = None


@dataclass(frozen=True)
class Setup:
    """How the run was set up, which its folders do not say.

    `source` names the data (`scenes`), `facts` are the settings that the page and the cards print,
    `times` what every stage took, `whole` the parts of the whole students by variant.
    """

    title: str
    source: str
    seeds: Sequence[int]
    num_gallery_samples: int
    facts: Sequence[tuple[str, Any]]
    times: Mapping[str, str]
    whole: Mapping[str, Mapping[str, str]]


def build_report(folders: Folders, reports: Path, setup: Setup) -> None:
    """Write the report of a run to the folder `reports`."""
    measured = read_run(folders.metrics, setup.source, tuple(setup.seeds))
    run = own_size(measured)
    full_size = read_full_size(measured, folders.results)
    all_committed = read_committed(folders.results)
    committed, of_latency = judged_on(all_committed), judged_on(all_committed, OF_LATENCY)
    claims = judge_all(measured, all_committed, full_size)
    histories = _histories(folders.models)
    gallery = read_gallery(
        folders.samples, run, setup.num_gallery_samples, folders.curated, folders.conditions
    )
    first = overview.first_screen(run, gallery)
    rows = _tables(run, committed, full_size)
    families = sections.family_sections(
        sections.Known(
            run, committed, of_latency, full_size, rows, gallery, histories, first["plots"]
        )
    )
    cost_tables = costs.cost_tables(run, full_size)
    data = _data(folders)
    reports.mkdir(parents=True, exist_ok=True)
    write_for_dvc(reports, run, histories)
    cards.write_cards(
        reports / "cards", run, folders.models, folders.selection, setup.facts, setup.whole
    )
    downloads.write_params(reports, [folders.curated, folders.selection, folders.models])
    context = {
        "title": setup.title,
        "source": setup.source,
        "seeds": list(setup.seeds),
        "facts": setup.facts,
        "times": _times(folders, run, setup.times),
        "versions": made_with(folders.models),
        "files": downloads.write_tables(reports, rows, run, claims, data),
        **first,
        "families": families,
        **ledger.ledger(claims, committed),
        "layers": _layers(folders.init),
        **data,
        "cost_tables": cost_tables,
        "search": search.entries(families, claims, cost_tables),
        **_provenance(folders, run),
    }
    write_pages(reports, context)


def _tables(
    run: Results, committed: Results | None, full_size: Sequence[Results]
) -> dict[str, list[tables.Row]]:
    all_results = [run] if committed is None else [run, committed]
    printed = {n: tables.printed_table(n, all_results, full_size) for n in PRINTED}
    sizes = [run, *full_size]
    return printed | {
        "parameters": tables.profile_table(sizes, prices.PARAMETERS),
        "speed": tables.profile_table(sizes, prices.SPEED),
    }


def _histories(models: Path) -> dict[str, Any]:
    """{variant: training.json} of every trained model."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": read_json(path)
        for family in STUDENTS
        for path in sorted(models.glob(f"{family}/*/training.json"))
    }


def _layers(init: Path) -> dict[str, str] | None:
    path = init / "svd" / "layers.json"
    report = read_json(path) if path.is_file() else {"layers": []}
    drawing = figures_training.layer_map(report["layers"])
    return {"svg": drawing, "about": costs.layers_about(report)} if drawing else None


def _data(folders: Folders) -> dict[str, Any]:
    maps = condition_maps.map_counts(folders.conditions)
    return {
        "maps": maps,
        "map_reasons": condition_maps.REASONS,
        "left_out": condition_maps.left_out(maps),
        "funnel": read_json(folders.selection / "funnel.json"),
        "rejected": read_rejected(folders.curated, folders.selection),
    }


def _times(folders: Folders, run: Results, times: Mapping[str, str]) -> dict[str, str]:
    """Those of `times` that made this run: not of a variant that an earlier one had."""
    made = {f"evaluate/{variant}" for variant in run.variants()}
    for folder in (folders.curated, folders.conditions, folders.models, folders.samples):
        for artifact in find_artifacts(folder) if folder and folder.is_dir() else []:
            manifest = read_manifest(artifact)
            made |= {manifest["label"], *manifest["ancestors"]}
    stages = {label.partition("/")[0] for label in made}
    return {
        label: time
        for label, time in times.items()
        if label in made or label.partition("/")[0] not in stages
    }


def _provenance(folders: Folders, run: Results) -> dict[str, Any]:
    found = {}
    for folder in (folders.curated, folders.selection, folders.init, folders.models):
        if folder.is_dir():
            for artifact in find_artifacts(folder):
                manifest = read_manifest(artifact)
                found[manifest["label"]] = manifest["fingerprint"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for variant in run.variants():
        for name, reason in run.metrics[variant]["skipped"].items():
            reasons.setdefault((reason, variant), []).append(name)
    skipped = {
        f"{label(variant)}: {', '.join(names)}": reason
        for (reason, variant), names in reasons.items()
    }
    return {"fingerprints": dict(sorted(found.items())), "skipped": skipped}
