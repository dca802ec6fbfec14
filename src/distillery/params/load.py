"""Checking params: every problem is one line with the place, the key and what to do.

In: a YAML file, or values and where each stands. Out: a frozen `Params`. An unknown or missing key,
a wrong type, a value out of range and a pair of values that contradict each other are errors. Not
here: reading YAML (`read`), the words of the lines (`problems`).
"""

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distillery.core import precision
from distillery.core.errors import DistilleryError
from distillery.params.model import Params
from distillery.params.problems import described
from distillery.params.read import Places, dotted, read_values


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
        params = Params.model_validate(values)
    except ValidationError as error:
        lines = described(error.errors(), values, places, source)
        raise DistilleryError("\n".join(lines)) from None
    for key, word, name in _other_words(values, ()):
        precision.hint(f"{places.get(key, source)}: {dotted(key)}", word, name)
    return params


def _other_words(values: Mapping[str, Any], key: tuple) -> Iterator[tuple[tuple, Any, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _other_words(value, (*key, name))
        elif name in ("precision", "dtype") and (read := precision.of_other_word(value)):
            yield (*key, name), value, read


def _not_numbers(value: Any, key: tuple) -> Iterator[tuple[tuple, str]]:
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from _not_numbers(item, (*key, name))
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{'.nan' if math.isnan(value) else '.inf'} is no number here"
    elif isinstance(value, int) and abs(value) > sys.maxsize:
        yield key, "a number of more than 63 bits"
