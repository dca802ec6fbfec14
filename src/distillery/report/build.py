"""Everything the report is made of, gathered from a run's folders.

In: the folders that earlier stages wrote. Out: `index.html`, `claims.json`, `tables/*.csv` in one
folder. What an earlier stage did not make is left out and said to be missing; it is never invented.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core.artifacts import (
    find_artifacts,
    made_with,
    read_json,
    read_manifest,
    write_json,
)
from distillery.families import STUDENTS, TRAINED
from distillery.families.names import label
from distillery.report import cards, costs, figures, figures_training, sections, story, tables
from distillery.report.claims import VERDICTS, judge_all
from distillery.report.evidence import Results, judged_on, read_committed, read_run
from distillery.report.for_dvc import write_for_dvc
from distillery.report.full_size import decides, own_size, read_full_size
from distillery.report.gallery import hero_strip, read_gallery
from distillery.report.page import render
from distillery.report.pictures import read_rejected

HERO_PROMPTS = 6
QUALITIES = {
    "reader_shape": "shapes", "edge_f1": "edges", "miou": "regions", "kid": "KID",
    "kid_teacher": "KID to teacher", "lpips": "LPIPS", "lpips_pair": "LPIPS",
    "prediction_distance": "distance to teacher",
}  # fmt: skip
COSTS = {
    "parameters_total": "parameters", "parameters_unet": "parameters",
    "parameters_adapter": "parameters", "parameters_in_optimiser": "trained parameters",
    "latency_s": "latency", "train_step_s": "training step",
    "train_memory_bytes": "training memory",
}  # fmt: skip
PRINTED = tuple(name for family in STUDENTS.values() for name in family.shown.tables)
TEACHERS = ("teacher/guided", "teacher/control_canny")


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
    committed = judged_on(read_committed(folders.results))
    claims = judge_all(measured, committed, [size for size in full_size if decides(size)])
    rows = _tables(run, committed, full_size)
    histories = _histories(folders.models)
    gallery = read_gallery(
        folders.samples, run, setup.num_gallery_samples, folders.curated, folders.conditions
    )
    reports.mkdir(parents=True, exist_ok=True)
    write_json(reports / "claims.json", claims)
    for name, table in rows.items():
        tables.write_csv(reports / "tables" / f"{name}.csv", table)
    write_for_dvc(reports, run, histories)
    num_cards = cards.write_cards(
        reports / "cards", run, folders.models, folders.selection, setup.facts, setup.whole
    )
    context = {
        "title": setup.title,
        "source": setup.source,
        "seeds": list(setup.seeds),
        "facts": setup.facts,
        "times": setup.times,
        "versions": made_with(folders.models),
        "num_cards": num_cards,
        **_first_screen(run, gallery),
        "families": sections.family_sections(run, committed, full_size, rows, gallery, histories),
        **_claims(claims, committed),
        "layers": _layers(folders.init),
        **_data(folders),
        "cost_tables": costs.cost_tables(run, full_size),
        **_provenance(folders, run),
    }
    (reports / "index.html").write_text(render(context), encoding="utf-8")


def _tables(
    run: Results, committed: Results | None, full_size: Sequence[Results]
) -> dict[str, list[tables.Row]]:
    all_results = [run] if committed is None else [run, committed]
    printed = {n: tables.printed_table(n, all_results, full_size) for n in PRINTED}
    sizes = [run, *full_size]
    return printed | {
        "parameters": tables.profile_table(sizes, tables.PARAMETERS),
        "speed": tables.profile_table(sizes, tables.SPEED),
    }


def _first_screen(run: Results, gallery: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "headline": story.headline(run),
        "certainty": story.certainty(run),
        "student": story.main_student(run),
        "tiles": story.key_numbers(run),
        "cards": sections.family_cards(run),
        "gallery": gallery,
        "gallery_first": _first_models(run, gallery),
        "hero": hero_strip(gallery, HERO_PROMPTS),
        **_plots(run),
    }


def _first_models(run: Results, gallery: Mapping[str, Any]) -> list[str]:
    """What the gallery shows before anyone chooses: the teachers and each family's student."""
    mains = [family.main_student(run.variants()) for family in STUDENTS.values()]
    known = [model["id"] for model in gallery["models"]]
    wanted = [*TEACHERS, *mains]
    first = [name for name in known if name in wanted]
    return first if len(first) > 1 else [n for n in known if not n.startswith("reference/")][:4]


def _plots(run: Results) -> dict[str, Any]:
    """Quality against cost, per family: {"family quality cost": SVG}, and what to choose from."""
    plots = {}
    for family in STUDENTS.values():
        own = run.variants(family.name)
        main = family.main_student(own)
        beside = [v for v in TEACHERS if v in run.variants()]
        is_whole, shown = not family.stage, family.shown
        replaced = (shown.teacher, shown.cost_baseline) if is_whole else None
        others = [s for f in TRAINED.values() if (s := f.main_student(run.variants()))]
        for quality in shown.qualities if own else ():
            for cost in shown.costs:
                is_total = is_whole and cost == "parameters_total"
                variants = [*beside, *(others if is_total else ()), *own]
                drawing = figures.quality_against_cost(run, quality, cost, variants, main, replaced)
                if drawing:
                    plots[f"{family.name} {quality} {cost}"] = drawing
    used = [set(column) for column in zip(*(key.split() for key in plots), strict=True)]
    families, qualities, prices = used or (set(), set(), set())
    return {
        "plots": plots,
        "plot_families": [(f.name, f.texts.title) for f in STUDENTS.values() if f.name in families],
        "qualities": [(k, v) for k, v in QUALITIES.items() if k in qualities],
        "costs": [(k, v) for k, v in COSTS.items() if k in prices],
    }


def _claims(claims: Sequence[Mapping[str, Any]], committed: Results | None) -> dict[str, Any]:
    about = (
        f"Judged on {len(committed.seeds)} training seeds of {committed.setting}, committed on "
        f"{committed.date} ({committed.machine}); this run's numbers stand beside."
        if committed
        else "Statistical claims need three training seeds, and no such results are committed yet."
    )
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for claim in claims:
        groups.setdefault(claim["source"].split(",")[0], []).append(claim)
    return {
        "claims": claims,
        "claims_about": about,
        "claim_groups": [
            {"name": name, "claims": group, "tally": _tally(group)}
            for name, group in groups.items()
        ],
        "tally": _tally(claims),
    }


def _tally(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts = Counter(claim["verdict"] for claim in claims)
    return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}


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
    return {
        "funnel": read_json(folders.selection / "funnel.json"),
        "rejected": read_rejected(folders.curated, folders.selection),
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
