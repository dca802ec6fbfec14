"""What the models of the params refuse, in words: a line each with the place, the key, what to do.

In: pydantic's problems, the values and where each stands. Out: lines; an unknown key stands before
what is missing, and a missing key that it was meant for is not said again. Not here: reading files.
"""

import datetime
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distillery.params.base import FORMS
from distillery.params.merge import annotation_at, models_in
from distillery.params.model import Params
from distillery.params.read import Places, dotted

Problem = Mapping[str, Any]
_FORMS = ("model_type", "dict_type", "list_type")  # errors of a value's form


def described(
    problems: Sequence[Problem], values: Mapping[str, Any], places: Places, source: str
) -> list[str]:
    """A line for each problem of `values`; `source` is the place of what has none of its own."""
    keyed = [(_key_of(problem, values), problem) for problem in problems]
    unknown = [key for key, problem in keyed if problem["type"] == "extra_forbidden"]
    meant = {(*key[:-1], name) for key in unknown for name in _meant(key)}
    return [
        _line(key, problem, places, source)
        for key, problem in sorted(_of_one_form(keyed), key=lambda one: _is_missing(one[1]))
        if not (_is_missing(problem) and key in meant)
    ]


def _is_missing(problem: Problem) -> bool:
    return problem["type"] == "missing"


def _key_of(problem: Problem, values: Any) -> tuple:
    """Its key path without the names of what a value may be, which pydantic puts between."""
    key, at = [], values
    for name in problem["loc"]:
        known = at if isinstance(at, Mapping) else range(len(at)) if isinstance(at, list) else ()
        if name in known:
            key.append(name)
            at = at[name]
    return (*key, problem["loc"][-1]) if _is_missing(problem) else tuple(key)


def _of_one_form(keyed: Sequence[tuple[tuple, Problem]]) -> Iterator[tuple[tuple, Problem]]:
    """Of a value that may be a word or a section: what is wrong with it as that which it is."""
    for key, problem in keyed:
        others = [other for other, given in keyed if given is not problem]
        if isinstance(problem.get("input"), Mapping | list) and not _is_missing(problem):
            if any(len(other) > len(key) > 0 and other[: len(key)] == key for other in others):
                continue  # no word, and what is wrong inside is said
        elif problem["type"] in _FORMS and key in others:
            continue  # no section, and what is wrong with the word is said
        yield key, problem


def _line(key: tuple, problem: Problem, places: Places, source: str) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    name, _, rest = message.partition(": ")
    named = (*key, *name.split("."))
    if rest and (not key or named in places):  # a contradictory pair: the message names its key
        key, message = named, rest
    known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in places), ())
    where = f"{places.get(known, f'{source}:1')}: {dotted(key)}"
    if problem["type"] == "extra_forbidden":
        hint = "".join(f"did you mean {name}? " for name in _meant(key))
        return f"{where}: unknown key; {hint}known here: {', '.join(_known_keys(key[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: missing; docs/params.md describes it"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{where}: expected keys with values below it, as in params.yaml"
    if problem["type"] == "string_pattern_mismatch":
        message = FORMS.get(problem["ctx"]["pattern"], message)
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    if problem["type"] == "string_type" and isinstance(given, int | float):
        shown += "; write it in quotes"  # as typed, which may be 1_000 or yes
    if problem["type"] == "string_type" and isinstance(given, datetime.date):
        shown = f'; write it in quotes: "{given}"'
    return f"{where}: {message}{shown}"


def _meant(key: tuple) -> list[str]:
    """The known key, if any, that an unknown one is nearest to."""
    return difflib.get_close_matches(str(key[-1]), _known_keys(key[:-1]), n=1)


def _known_keys(path: tuple) -> list[str]:
    """What the section, or the entry of the user's own, at `path` may hold."""
    annotation: Any = Params
    for name in path:
        annotation = annotation_at(annotation, name)
    return sorted({key for model in models_in(annotation) for key in model.model_fields})
