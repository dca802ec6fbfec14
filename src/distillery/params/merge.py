"""Laying some values of params.yaml over others: the one rule of presets and overrides.

In: plain mappings. Out: a plain mapping; `load` checks it. A section is merged key by key. What has
keys of the user's own (`variants`, `whole`, `controlnets`, `sha256`, `defects`) is replaced as a
whole, as is everything else: a preset names all of its variants.
"""

from collections.abc import Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from distillery.params.model import Params


def lay_over(base: Any, override: Any, section: type[BaseModel] | None = Params) -> Any:
    """`override` laid over `base`, the values of `section`; None for what is no section."""
    if not isinstance(override, Mapping) or section is None:
        return override
    old = base if isinstance(base, Mapping) else {}
    new = {k: lay_over(old.get(k), v, section_at(section, k)) for k, v in override.items()}
    return {**old, **new}


def typed(base: Any, given: Any) -> Any:
    """Values of a command line, whose leaves are text: read as YAML where the base is no text."""
    if isinstance(given, str) and not isinstance(base, str):
        given = read_scalar(given)
    if isinstance(given, Mapping):
        old = base if isinstance(base, Mapping) else {}
        return {key: typed(old.get(key), value) for key, value in given.items()}
    if isinstance(given, list):
        sample = base[0] if isinstance(base, list) and base else None
        return [typed(sample, item) for item in given]
    return given


def section_at(section: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The model of a section's key, if that is a section too."""
    field = section.model_fields.get(key) if section else None
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    if any(getattr(kind, "__origin__", kind) is dict for kind in kinds):
        return None
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def read_scalar(text: str) -> Any:
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
