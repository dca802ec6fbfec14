"""Everything the report is made of, gathered from a run's folders.

In: the folders that earlier stages wrote. Out: `index.html`, `claims.json`, `tables/*.csv` in one
folder. What an earlier stage did not make is left out and said to be missing; it is never invented.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.artifacts import find_artifacts, read_json, read_manifest, write_json
from distillery.report import figures, sections, story, tables
from distillery.report.claims import VERDICTS, judge_all
from distillery.report.evidence import Results, judged_on, label, read_committed, read_run
from distillery.report.page import render
from distillery.report.pictures import HERO, hero_strip, read_gallery, read_rejected
from distillery.run import library_versions

HERO_PROMPTS = 6
QUALITIES = {"reader_shape": "shapes", "kid": "KID", "clip_score": "CLIP score",
             "prediction_distance": "distance to teacher"}  # fmt: skip
COSTS = {"parameters_total": "parameters", "latency_s": "latency"}


@dataclass(frozen=True)
class Folders:
    """Where a run's artefacts are."""

    curated: Path
    selection: Path
    init: Path
    models: Path
    samples: Path
    metrics: Path
    results: Path


def build_report(
    folders: Folders,
    reports: Path,
    *,
    title: str,
    source: str,
    seeds: Sequence[int],
    num_gallery_samples: int,
    facts: Sequence[tuple[str, Any]],
    times: Mapping[str, str],
) -> None:
    """Write the report to the folder `reports`. `source` names the data (`scenes`)."""
    run = read_run(folders.metrics, source, tuple(seeds))
    committed = judged_on(read_committed(folders.results))
    claims = judge_all(run, committed)
    all_results = [run] if committed is None else [run, committed]
    table_rows = {
        "elr_table1": tables.elr_table1(all_results),
        "parameters": tables.profile_table(run, tables.PARAMETERS),
        "speed": tables.profile_table(run, tables.SPEED),
    }
    reports.mkdir(parents=True, exist_ok=True)
    write_json(reports / "claims.json", claims)
    for name, rows in table_rows.items():
        tables.write_csv(reports / "tables" / f"{name}.csv", rows)
    context = {
        "title": title,
        "source": source,
        "seeds": list(seeds),
        "facts": facts,
        "times": times,
        "versions": library_versions(),
        **_first_screen(run, folders, num_gallery_samples),
        **sections.table1(all_results, table_rows["elr_table1"]),
        **_claims(claims, committed),
        **_training(folders),
        **_data(folders),
        "cost_tables": sections.cost_tables(run),
        **_provenance(folders, run),
    }
    (reports / "index.html").write_text(render(context), encoding="utf-8")


def _first_screen(run: Results, folders: Folders, num_samples: int) -> dict[str, Any]:
    gallery = read_gallery(folders.samples, run, num_samples)
    plots = {
        f"{quality} {cost}": drawing
        for quality in QUALITIES
        for cost in COSTS
        if (drawing := figures.quality_against_cost(run, quality, cost))
    }
    drawn = [key.split() for key in plots]
    return {
        "headline": story.headline(run),
        "certainty": story.certainty(run),
        "student": story.main_student(run),
        "tiles": story.key_numbers(run),
        "gallery": gallery,
        "gallery_first": list(HERO[:4]),
        "hero": hero_strip(gallery, HERO_PROMPTS),
        "plots": plots,
        "qualities": [(k, v) for k, v in QUALITIES.items() if k in {q for q, _ in drawn}],
        "costs": [(k, v) for k, v in COSTS.items() if k in {c for _, c in drawn}],
    }


def _claims(claims: Sequence[Mapping[str, Any]], committed: Results | None) -> dict[str, Any]:
    counts = Counter(claim["verdict"] for claim in claims)
    about = (
        f"Judged on {len(committed.seeds)} training seeds of {committed.setting}, committed on "
        f"{committed.date} ({committed.machine}); this run's numbers stand beside."
        if committed
        else "Statistical claims need three training seeds, and no such results are committed yet."
    )
    return {
        "claims": claims,
        "claims_about": about,
        "tally": {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]},
    }


def _training(folders: Folders) -> dict[str, Any]:
    histories = {
        f"unet/{path.parent.name}": read_json(path)
        for path in sorted(folders.models.glob("unet/*/training.json"))
    }
    path = folders.init / "layers.json"
    report = read_json(path) if path.is_file() else {"layers": []}
    drawing = figures.layer_map(report["layers"])
    return {
        "curves": figures.training_curves(histories),
        "layers": {"svg": drawing, "about": sections.layers_about(report)} if drawing else None,
    }


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
