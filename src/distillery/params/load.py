"""Reading params: every problem is one line with the place, the key and what to do.

In: a YAML file, or values and where each stands. Out: a frozen `Params`, or plain values and their
places. An unknown or missing key, a wrong type, a value out of range, a key given twice and a pair
of values that contradict each other are errors.
"""

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distillery.core.errors import DistilleryError
from distillery.params.merge import section_at
from distillery.params.model import Params

Places = Mapping[tuple, str]
"""`file:line` of every key path, e.g. {("curate", "min_side_px"): "params.yaml:72"}."""


def load_params(path: Path) -> Params:
    """Read and check a complete params file.

    Raises DistilleryError with one line per problem: `params.yaml:12: curate.min_side_px: ...`.
    """
    values, places = read_values(path)
    return check_values(values, places, str(path))


def check_values(values: Mapping[str, Any], places: Places, source: str) -> Params:
    """`values` as checked params; `source` is the place of what has none of its own."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem, places, source) for problem in error.errors()]
        raise DistilleryError("\n".join(problems)) from None


def read_values(path: Path) -> tuple[dict[str, Any], dict[tuple, str]]:
    """The mapping in a YAML file, unchecked, and the place of every key path in it."""
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DistilleryError(
            f"{path}:{_line(error, text)}: not valid YAML: {_why(error)}"
        ) from None
    if not isinstance(values, dict):
        raise DistilleryError(f"{path}:1: expected a mapping of sections, as in params.yaml")
    places: dict[tuple, str] = {}
    _collect_places(node, (), places, path)
    return values, places


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DistilleryError(
            f"{path}: not found; `distillery use scenes` writes a params.yaml"
        ) from None
    except OSError as error:
        raise DistilleryError(f"{path}: {error.strerror}; give a params file") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        line = 1 if is_wide else data[: error.start].count(b"\n") + 1
        what = "UTF-16" if is_wide else f"no UTF-8 (byte 0x{data[error.start]:02x})"
        raise DistilleryError(
            f"{path}:{line}: the text is {what}; save the file as UTF-8"
        ) from None


def _line(error: Exception, text: str) -> int:
    if mark := getattr(error, "problem_mark", None):
        return mark.line + 1
    return text[: getattr(error, "position", 0)].count("\n") + 1  # of a character not allowed


def _why(error: Exception) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character 0x{error.character:02x} is not allowed; delete it"
    if isinstance(error, RecursionError):
        return "too deeply nested"
    return getattr(error, "problem", None) or str(error).splitlines()[0]


def _collect_places(node: yaml.Node, key: tuple, places: dict[tuple, str], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            child = (*key, name.value)
            place = f"{path}:{name.start_mark.line + 1}"
            if child in places:
                raise DistilleryError(f"{place}: {'.'.join(map(str, child))}: given twice")
            places[child] = place
            _collect_places(value, child, places, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            places[(*key, index)] = f"{path}:{value.start_mark.line + 1}"
            _collect_places(value, (*key, index), places, path)


def _describe(problem: Mapping[str, Any], places: Places, source: str) -> str:
    key = tuple(problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not key and ": " in message:  # a contradictory pair: the message names its key
        dotted, message = message.split(": ", 1)
        key = tuple(dotted.split("."))
    known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in places), ())
    where = f"{places.get(known, f'{source}:1')}: {'.'.join(map(str, key))}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; known here: {', '.join(_known_keys(key[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: missing; docs/params.md describes it"
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    if problem["type"] == "string_type" and given is not None:
        shown += f'; write it in quotes: "{given}"'
    return f"{where}: {message}{shown}"


def _known_keys(path: tuple) -> list[str]:
    section: Any = Params
    for name in path:
        section = section_at(section, name)
    return sorted(section.model_fields) if section else ["see docs/params.md"]
