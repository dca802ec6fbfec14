"""The JSON schemas of params.yaml, for editors, and the table of all parameters.

In: the pydantic models and a params file. Out: the texts of the schemas of params.yaml and of
presets, of docs/params.md, and of the shipped params.yaml that presets differ from.
"""

import ast
import functools
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from distillery.params import Params
from distillery.params.base import Frozen
from distillery.params.overrides import WRITTEN_BY

_INTRO = """# Parameters

Everything in `params.yaml`, with the values that it ships with. Every key is needed: there are
no defaults in code. An unknown key, a wrong type or a value out of range stops before anything
runs, on one line with file, line and key. `python workflow/sync.py` writes this page.

`distillery use PRESET [key=value ...]` writes a complete `params.yaml` for a preset, a file in
`presets/` with the values that differ; numbers are written anew, `2.0e-3` as `0.002`. For one run,
`snakemake --configfile presets/PRESET.yaml`
and `--config seed=1 'curate={min_side_px: 64}'` lay values over `params.yaml`. In all of them a
section is merged key by key; `variants`, `whole`, `controlnets`, `sha256`, `defects` and lists are
replaced as a whole. `2e-3` is a number, and number formats are `fp32`, `bf16` and `fp16`.

Paths are relative to the repository. What `ingest.path` or a teacher's folder points to is not
watched: after changing the files there, run `snakemake -R ingest` (or `prepare_teacher`).
"""


def schema() -> dict[str, Any]:
    """The JSON schema of params.yaml; a field's docstring is its description.

    pydantic could read the docstrings itself, but does so whenever a stage starts (0.2 CPU s).
    """
    described = Params.model_json_schema()
    sections = {**described["$defs"], Params.__name__: described}
    for model in _models(Frozen):
        fields = sections.get(model.__name__, {}).get("properties", {})
        for name in fields.keys() & _docstrings(model).keys():
            fields[name]["description"] = _docstrings(model)[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _models(base: type) -> Iterator[type]:
    """`base` and every class below it."""
    yield base
    for model in base.__subclasses__():
        yield from _models(model)


@functools.cache
def _docstrings(model: type) -> dict[str, str]:
    """{field: the text below it} of a class and those that it extends."""
    texts = {} if model is Frozen else _docstrings(model.__base__)
    try:
        source = textwrap.dedent(inspect.getsource(model))
    except OSError:  # made by a call: its fields bring their descriptions
        return texts
    for field, below in itertools.pairwise(ast.parse(source).body[0].body):
        match field, below:
            case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                texts = {**texts, name: inspect.cleandoc(text)}
    return texts


def preset_schema() -> dict[str, Any]:
    """The same for a preset: no section is needed, and no key of one."""
    document = schema()
    sections = [document]
    for section in sections:
        section.pop("required", None)
        inner = (_section_in(field, document) for field in section["properties"].values())
        sections += [s for s in inner if s and "required" in s]
    return document


def _section_in(field: dict[str, Any], document: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a field is, where it is one or null."""
    refs = [kind for kind in field.get("anyOf", [field]) if "$ref" in kind]
    return _resolve(refs[0], document) if refs else None


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
        entries = inner.get("patternProperties", {}).values()
        if "properties" in inner:
            yield from _rows(inner["properties"], f"{prefix}{name}.", value, document)
        elif value and (named := [f for f in entries if "$ref" in f]):
            entry = _resolve(named[0], document)
            names = ", ".join(f"`{entry}`" for entry in value) or "`{}`"
            yield f"| `{prefix}{name}` | {names} | entries | {entry['description']} |"
            for key, first in list(value.items())[:1]:  # one says what all have
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


def texts(params_file: Path, shipped: Path) -> dict[str, str]:
    """{path in the repository: text} of all that follows from the models and params.yaml.

    `shipped` is params.yaml as it ships; a params.yaml that `distillery use` wrote leaves it alone.
    """
    text = params_file.read_text(encoding="utf-8")
    if WRITTEN_BY in text:
        text = shipped.read_text(encoding="utf-8")
    return {
        "workflow/schemas/params.schema.json": json.dumps(schema(), indent=1) + "\n",
        "workflow/schemas/preset.schema.json": json.dumps(preset_schema(), indent=1) + "\n",
        "docs/params.md": table(yaml.safe_load(text)),
        shipped.relative_to(params_file.parent).as_posix(): text,
    }
