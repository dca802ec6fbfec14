"""Laying some values of params.yaml over others: the one rule of presets and overrides.

In: plain mappings. Out: a plain mapping; `load` checks it. A section is merged key by key. What has
keys of the user's own (`variants`, `whole`, `plans`, `controlnets`, `sha256`, `defects`) is
replaced as a whole, as is everything else: a preset names all of its variants.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

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


def typed(given: Any, annotation: Any = Params) -> Any:
    """Values of a command line, whose leaves are text, as the field of `annotation` takes them.

    What a field of text gets stays text: a folder may be named 2024, a commit 1234567.
    """
    if isinstance(given, str):
        given = _parsed(given, annotation)
    if isinstance(given, Mapping):
        return {key: typed(value, annotation_at(annotation, key)) for key, value in given.items()}
    if isinstance(given, list):
        items = [get_args(kind)[0] for kind in _kinds(annotation) if get_origin(kind) is list]
        return [typed(item, items[0] if items else None) for item in given]
    return given


def _parsed(text: str, annotation: Any) -> Any:
    """A mapping or list of texts, or a text as the field takes it."""
    if not any(kind is str or isinstance(kind, str) for kind in _kinds(annotation)):
        shape = _load(text, yaml.BaseLoader)
        return shape if isinstance(shape, Mapping | list) else read_scalar(text)
    if text.lstrip().startswith("{") and models_in(annotation):
        return _load(text, yaml.BaseLoader)
    may_be_none = type(None) in _kinds(annotation)
    return None if may_be_none and text.strip() in ("", "null", "~") else text


def annotation_at(annotation: Any, key: str) -> Any:
    """The annotation of a key of a section or mapping; None where nothing is known of it."""
    for kind in _kinds(annotation):
        if _is_model(kind) and key in kind.model_fields:
            return kind.model_fields[key].annotation
        if get_origin(kind) is dict:
            return get_args(kind)[1]
    return None


def _kinds(annotation: Any) -> list[Any]:
    """What a value may be: the members of unions, literals and annotated types."""
    if get_origin(annotation) in (Union, UnionType, Literal):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def section_at(section: Any, key: str) -> type[BaseModel] | None:
    """The model of a section's key, if that is a section too."""
    annotation = annotation_at(section, key)
    if any(get_origin(kind) is dict for kind in _kinds(annotation)):
        return None
    return next(iter(models_in(annotation)), None)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value may be of."""
    return [kind for kind in _kinds(annotation) if _is_model(kind)]


def read_scalar(text: str) -> Any:
    """A YAML value; unlike in YAML 1.1, `1e-3` is a number."""
    value = _load(text, yaml.SafeLoader)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _load(text: str, loader: type) -> Any:
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError):
        return text
