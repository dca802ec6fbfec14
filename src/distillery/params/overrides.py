"""Overrides given to Snakemake, as one params file that every stage can read.

In: the default params file, `--configfile` files and `--config` values. Out: the path to pass on as
`--params`: the default file itself when nothing differs, else a merged file whose name is a hash of
its text. It does not check values; `load_params` does.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.core.artifacts import publish
from distillery.params.load import read_yaml
from distillery.params.model import Params


def effective_params(default: Path, files: Sequence[Path], values: Mapping[str, Any]) -> Path:
    """The params file to run with; see the module's docstring.

    A file that holds every section (a preset) replaces what came before it; a partial one, and
    `values`, are merged into it key by key. Nested values of `--config` arrive as strings: where
    the key is not a string they are read as YAML.
    """
    base, _ = read_yaml(default)
    merged = base
    for file in files:
        given, _ = read_yaml(file)
        merged = given if set(Params.model_fields) <= set(given) else merge(merged, given)
    merged = merge(merged, values)
    return default if merged == base else _write(merged)


def merge(base: Any, override: Any) -> Any:
    """`override` laid over `base`: mappings key by key, anything else replaced."""
    if isinstance(override, str) and not isinstance(base, str):
        override = _read_scalar(override)
    if isinstance(override, Mapping):
        old = base if isinstance(base, Mapping) else {}
        new = {key: merge(old.get(key), value) for key, value in override.items()}
        return {**old, **new}
    if isinstance(override, list):
        sample = base[0] if isinstance(base, list) and base else None
        return [merge(sample, item) for item in override]
    return override


def _read_scalar(text: str) -> Any:
    """A YAML value; unlike in YAML 1.1, `1e-3` is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _write(values: Mapping[str, Any]) -> Path:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    work = Path((values.get("paths") or {}).get("work") or "work")
    path = work / f"params-{name}.yaml"
    if not path.is_file():
        with publish(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return path
