"""Every table of the report as CSV and as JSON, and the list of all files that a reader may take.

In: rows. Out: `tables/<name>.csv` and `.json`, `params.json`. Not here: what stands in the tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillery.core.artifacts import find_artifacts, read_manifest, write_json
from distillery.metrics.catalog import CATALOG
from distillery.report import condition_maps, ledger, tables
from distillery.report.evidence import Results
from distillery.report.for_dvc import METRICS, QUALITY

CLAIMS = "claims.json"
PARAMS = "params.json"
MEASURED = (
    "model", "metric", "unit", "direction", "value", "std", "ci_low", "ci_high", "n", "seeds",
    "setting",
)  # fmt: skip
FUNNEL = ("outcome", "reason", "count")

Rows = Sequence[Mapping[str, Any]]


def table_path(name: str, ending: str) -> str:
    """Where a table lies in the folder of the report; the claims' JSON has a place of its own."""
    return CLAIMS if (name, ending) == ("claims", "json") else f"tables/{name}.{ending}"


def write_tables(
    reports: Path, printed: Mapping[str, Rows], run: Results, claims: Rows, data: Mapping[str, Any]
) -> list[str]:
    """Write them all; returns the paths of these and of the other files with numbers.

    `data`: the `funnel`, and rows of condition `maps`.
    """
    write_json(reports / CLAIMS, claims)
    made = {name: (rows, tables.COLUMNS) for name, rows in printed.items()} | {
        "measured": (measured(run), MEASURED),
        "claims": (ledger.rows(claims), ledger.COLUMNS),
        "funnel": (counts(data["funnel"]), FUNNEL),
        "condition_maps": (_rows(data["maps"], condition_maps.COLUMNS), condition_maps.COLUMNS),
    }
    for name, (rows, columns) in made.items():
        tables.write_csv(reports / table_path(name, "csv"), rows, columns)
        if name != "claims":
            write_json(reports / table_path(name, "json"), list(rows))
    files = [table_path(name, ending) for name in made for ending in ("csv", "json")]
    return [*files, PARAMS, METRICS, QUALITY]


def measured(run: Results) -> list[dict[str, Any]]:
    """One row per model and metric of the run, with `MEASURED`."""
    return [
        {
            "model": model,
            "metric": name,
            "unit": CATALOG[name].unit if name in CATALOG else "",
            "direction": CATALOG[name].direction if name in CATALOG else "",
            **{key: metric[key] for key in ("value", "std", "ci_low", "ci_high", "n")},
            "seeds": " ".join(map(str, metric["seeds"])),
            "setting": run.setting,
        }
        for model in run.variants()
        for name, metric in sorted(run.metrics[model]["metrics"].items())
    ]


def _rows(rows: Rows, columns: Sequence[str]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in columns} for row in rows]


def counts(funnel: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of the images, with `FUNNEL`; the counts add up to what came in."""
    gone = [(kind, *one) for kind in ("rejected", "failed") for one in funnel[kind].items()]
    rows = [("kept", "", funnel["kept"]), *gone]
    return [dict(zip(FUNNEL, row, strict=True)) for row in rows]


def write_params(reports: Path, folders: Sequence[Path]) -> None:
    """{stage or artefact: the params that it read}, as the artefacts of a run record them."""
    artifacts = [a for folder in folders if folder.is_dir() for a in find_artifacts(folder)]
    manifests = [read_manifest(artifact) for artifact in artifacts]
    found = {one["label"]: one["recipe"].get("params", {}) for one in manifests}
    write_json(reports / PARAMS, dict(sorted(found.items())))
