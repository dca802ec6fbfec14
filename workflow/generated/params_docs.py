"""The JSON schema of params.yaml, for editors, and the table of all parameters.

In: the pydantic models and a params file. Out: the texts of workflow/schemas/params.schema.json and
docs/params.md.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from distillery.params import Params

_INTRO = """# Parameters

Everything in `params.yaml`, with the values of the `scenes` preset. Every key is needed: there are
no defaults in code. An unknown key, a wrong type or a value out of range stops before anything
runs, on one line with file, line and key. `python workflow/sync.py` writes this page.

Overrides for one run: `snakemake --config seed=1 'curate={min_side_px: 64}'`, or `--configfile
FILE`; a file with every section (a preset) replaces `params.yaml`, a smaller one is laid over it.
Paths are relative to the repository. What `ingest.path` or a teacher's folder points to is not
watched: after changing the files there, run `snakemake -R ingest` (or `prepare_teacher`).
"""


def schema() -> dict[str, Any]:
    """The JSON schema of params.yaml."""
    described = Params.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def table(values: dict[str, Any]) -> str:
    """One markdown table per section."""
    document = schema()
    top = {n: s for n, s in document["properties"].items() if "$ref" not in s}
    lines = [_INTRO, "## Shared by all stages", "", *_head(), *_rows(top, "", values, document)]
    for name, field in document["properties"].items():
        if "$ref" in field:
            section = _resolve(field, document)
            lines += ["", f"## {name}", "", section["description"], "", *_head()]
            lines += _rows(section["properties"], f"{name}.", values[name], document)
    return "\n".join(lines) + "\n"


def _head() -> list[str]:
    return ["| key | value | type | meaning |", "|---|---|---|---|"]


def _rows(fields: dict[str, Any], prefix: str, values: Any, document: dict) -> Iterator[str]:
    for name, field in fields.items():
        inner, value = _resolve(field, document), values[name]
        if "properties" in inner:
            yield from _rows(inner["properties"], f"{prefix}{name}.", value, document)
        elif named := [f for f in inner.get("patternProperties", {}).values() if "$ref" in f]:
            entry = _resolve(named[0], document)
            key, first = next(iter(value.items()))
            names = ", ".join(f"`{entry}`" for entry in value)
            yield f"| `{prefix}{name}` | {names} | entries | {entry['description']} |"
            yield from _rows(entry["properties"], f"{prefix}{name}.{key}.", first, document)
        else:
            shown = json.dumps(value).replace('"', "")
            kind, meaning = _kind(inner), field.get("description", "")
            yield f"| `{prefix}{name}` | `{shown}` | {kind} | {meaning} |"


def _resolve(field: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in field:
        return document["$defs"][field["$ref"].rsplit("/", 1)[1]]
    return field


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "section"
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    if "enum" in field:
        return ", ".join(field["enum"])
    if "const" in field:
        return str(field["const"])
    bounds = [
        f"{sign} {field[key]}"
        for key, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")
        )
        if key in field
    ]  # fmt: skip
    kind = field["type"]
    if kind == "array":
        kind = f"list of {_kind(field['items'])}"
    return " ".join([kind, *bounds])


def schema_text() -> str:
    """The schema as a file."""
    return json.dumps(schema(), indent=1) + "\n"


def table_text(preset: Path) -> str:
    """The page, with the values of a preset."""
    return table(yaml.safe_load(preset.read_text(encoding="utf-8")))
