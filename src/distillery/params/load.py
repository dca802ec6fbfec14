"""Reading a params file: every problem is one line with the file, the line and the key.

In: a YAML file. Out: a frozen `Params`, or the plain mapping with the lines of its keys. An unknown
or missing key, a wrong type, a value out of range, a key given twice and a pair of values that
contradict each other are errors.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distillery.core.errors import DistilleryError
from distillery.params.model import Params


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises DistilleryError with one line per problem: `params.yaml:12: curate.min_side_px: ...`.
    """
    values, lines = read_yaml(path)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem, path, lines) for problem in error.errors()]
        raise DistilleryError("\n".join(problems)) from None


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """The mapping in a YAML file, and the line (from 1) of every key path in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DistilleryError(f"{path}: not found; copy one from presets/") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise DistilleryError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(values, dict):
        raise DistilleryError(f"{path}:1: expected a mapping of sections; copy one from presets/")
    lines: dict[tuple, int] = {}
    _collect_lines(node, (), lines, path)
    return values, lines


def _collect_lines(node: yaml.Node, key: tuple, lines: dict[tuple, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            child = (*key, name.value)
            if child in lines:
                dotted = ".".join(map(str, child))
                raise DistilleryError(f"{path}:{name.start_mark.line + 1}: {dotted}: given twice")
            lines[child] = name.start_mark.line + 1
            _collect_lines(value, child, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*key, index)] = value.start_mark.line + 1
            _collect_lines(value, (*key, index), lines, path)


def _describe(problem: dict[str, Any], path: Path, lines: dict[tuple, int]) -> str:
    key = tuple(problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not key and ": " in message:  # a contradictory pair: the message names its key
        dotted, message = message.split(": ", 1)
        key = tuple(dotted.split("."))
    known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in lines), ())
    where = f"{path}:{lines.get(known, 1)}: {'.'.join(map(str, key))}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; known here: {', '.join(_known_keys(key[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: missing; presets/scenes.yaml shows it"
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message}{shown}"


def _known_keys(section: tuple) -> list[str]:
    model: Any = Params
    for name in section:
        field = model.model_fields.get(name) if _is_model(model) else None
        model = field.annotation if field else None
    return sorted(model.model_fields) if _is_model(model) else ["see presets/scenes.yaml"]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
