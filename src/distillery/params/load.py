"""Reading params: every problem is one line with the place, the key and what to do.

In: a YAML file, or values and where each stands. Out: a frozen `Params`, or plain values and their
places. An unknown or missing key, a wrong type, a value out of range, a key given twice and a pair
of values that contradict each other are errors.
"""

import codecs
import math
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distillery.core.errors import DistilleryError
from distillery.params.model import Params
from distillery.params.problems import Places, described, dotted

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_CAN_FAIL = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "timestamp"))
_MAX_SHOWN = 40
# As octal, or in sixties.
_READ_OTHERWISE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?)")
_MAX_DEPTH, _MAX_KEYS = 50, 20_000
_ADVICE = {
    r"'\t'": "; indent with blanks, not tabs",
    "expected <block end>": "; indent it as the lines that it belongs to",
    "mapping values are not allowed": "; indent it as the lines above, or quote the text",
    "unexpected end of stream": "; close the quote or bracket",
    "expected ',' or": "; close the bracket, or put a comma",
    "undefined alias": "; define it with & above, or write the value",
    "another document": "; delete the line ---",
    "could not determine a constructor": "; delete the word with !",
    "escape": "; a backslash stands in single quotes only, or write /",
}


def load_params(path: Path) -> Params:
    """Read and check a complete params file.

    Raises DistilleryError with one line per problem: `params.yaml:12: curate.min_side_px: ...`.
    """
    values, places = read_values(path)
    return check_values(values, places, str(path))


def check_values(values: Mapping[str, Any], places: Places, source: str) -> Params:
    """`values` as checked params; `source` is the place of what has none of its own."""
    for key, what in _not_numbers(values, ()):  # which no limit refuses, and nothing can use
        where = f"{places.get(key, source)}: {dotted(key)}"
        raise DistilleryError(f"{where}: {what}; write a number, or null where that is said")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = described(error.errors(), values, places, source)
        raise DistilleryError("\n".join(lines)) from None


def _not_numbers(value: Any, key: tuple) -> Iterator[tuple[tuple, str]]:
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from _not_numbers(item, (*key, name))
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{'.nan' if math.isnan(value) else '.inf'} is no number here"
    elif isinstance(value, int) and abs(value) > sys.maxsize:
        yield key, "a number of more than 63 bits"


def read_values(path: Path) -> tuple[dict[str, Any], dict[tuple, str]]:
    """The mapping in a YAML file, unchecked, and the place of every key path in it."""
    text = _read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        places = dict(islice(_places(node, (), path), _MAX_KEYS + 1))
        if len(places) > _MAX_KEYS:
            raise RecursionError  # aliases of aliases
        values = loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DistilleryError(
            f"{path}:{_line(error, text)}: not valid YAML: {_why(error)}"
        ) from None
    if not isinstance(values, dict):
        raise DistilleryError(f"{path}:1: expected a mapping of sections, as in params.yaml")
    return values, places


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        usual = path.name == "params.yaml"
        remedy = "`distillery use scenes` writes one" if usual else "check the name"
        raise DistilleryError(f"{path}: not found; {remedy}") from None
    except OSError as error:
        raise DistilleryError(f"{path}: {error.strerror}; give a params file") from None
    if wide := _wide(data):
        raise DistilleryError(f"{path}:1: the text is {wide}; save the file as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _num_lines(data[: error.start].decode("latin-1"))
        what = f"no UTF-8 (byte 0x{data[error.start]:02x})"
        raise DistilleryError(
            f"{path}:{line}: the text is {what}; save the file as UTF-8"
        ) from None


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark or by the zeros in it, which are half or most of it."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # before UTF-16's, its half
        return "UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = data.count(0) / max(len(data), 1)
    return "UTF-16" if 0.3 < zeros < 0.6 else "UTF-32" if 0.6 <= zeros < 0.8 else None


def _line(error: Exception, text: str) -> int:
    if mark := getattr(error, "problem_mark", None):
        return mark.line + 1
    return _num_lines(text[: getattr(error, "position", 0)])  # of a character not allowed


def _num_lines(text: str) -> int:
    """As YAML counts them, also of files whose lines end as on an old Mac."""
    return len(re.split(r"\r\n?|\n", text))


def _why(error: Exception) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character 0x{error.character:02x} is not allowed; delete it"
    if isinstance(error, RecursionError):
        return "too deeply nested, or too much of it"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    advice = next((said for words, said in _ADVICE.items() if words in problem), "")
    return f"{problem}{_begun(error)}{advice}"


def _begun(error: Exception) -> str:
    """Where the list, mapping or text begins that the error lies in, if on another line."""
    begin, end = (getattr(error, f"{name}_mark", None) for name in ("context", "problem"))
    is_apart = begin and end and begin.line != end.line
    return f" in what begins in line {begin.line + 1}" if is_apart else ""


def _places(node: yaml.Node, key: tuple, path: Path) -> Iterator[tuple[tuple, str]]:
    """Key path and place of all that is below a node."""
    if len(key) > _MAX_DEPTH:
        raise RecursionError  # an anchor may contain itself
    if isinstance(node, yaml.MappingNode):
        yield from _places_of_keys(node, key, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*key, index), f"{path}:{value.start_mark.line + 1}"
            yield from _places(value, (*key, index), path)
    elif node is not None and node.tag in _CAN_FAIL:
        _require_readable(node, f"{path}:{node.start_mark.line + 1}: {dotted(key)}")


def _places_of_keys(node: yaml.MappingNode, key: tuple, path: Path) -> Iterator[tuple[tuple, str]]:
    seen = set()
    for name, value in node.value:
        place, child = f"{path}:{name.start_mark.line + 1}", (*key, name.value)
        if name.tag == _MERGE:
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _places(part, key, path)
            continue
        if name.tag != _TEXT:
            what = name.value if isinstance(name, yaml.ScalarNode) else "a key"
            raise DistilleryError(f"{place}: {what} is no name; write one, or quote it")
        if name.value in seen:
            raise DistilleryError(f"{place}: {dotted(child)}: given twice")
        seen.add(name.value)
        yield child, place
        yield from _places(value, child, path)


def _require_readable(node: yaml.ScalarNode, where: str) -> None:
    """Numbers and dates are read after their form is known, and errors have no line by then."""
    try:
        if _READ_OTHERWISE.fullmatch(node.value):
            raise ValueError
        yaml.SafeLoader("").construct_object(node)
    except (ValueError, KeyError, AttributeError):  # the last two of `!!bool x`, `!!timestamp x`
        shown = node.value if len(node.value) < _MAX_SHOWN else f"{node.value[:_MAX_SHOWN]}..."
        raise DistilleryError(
            f"{where}: {shown} can't be read; write it in quotes, or without leading zeros"
        ) from None
