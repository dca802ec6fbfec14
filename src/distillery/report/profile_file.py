"""What a file of `docs/results/profile/` must hold for the report to use it.

In: a file that `distillery profile --json` wrote, and that anyone may have edited. Out: its values,
with `dtype` as one of `fp32`, `bf16` and `fp16`, whatever an older file calls it. Not here: what
the figures mean.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.core.precision import NAMES

_REMEDY = "write it again with distillery profile --json"
_LARGEST = 1e30  # whole numbers of hundreds of digits are more than a float holds


class _Check(NamedTuple):
    holds: Callable[[Any], bool]
    else_it: str


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LARGEST  # so NaN and true are none


def _are_above_zero(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(_is_number(v) and v for v in values)


def _precision(dtype: str) -> str:
    """`fp16` also of `float16`, and `fp32` of `float32, but where a row says otherwise`."""
    word = dtype.split(",")[0]
    return next((name for name, old in NAMES.items() if old == word), word)


_TEXT = _Check(lambda v: isinstance(v, str) and v != "", "is no text")
_FLAG = _Check(lambda v: isinstance(v, bool), "is neither true nor false")
_SIZE = _Check(lambda v: type(v) is int and 1 <= v < _LARGEST, "is no whole number from 1")
_BATCH = _Check(lambda v: bool(re.fullmatch("[1-9][0-9]{0,5}", v)), _SIZE.else_it)
_COUNT = _Check(_is_number, "is no number from 0")
_COST = _Check(lambda v: _is_number(v) and v > 0, "is no number above 0")
_COSTS = _Check(_are_above_zero, "is no list of numbers above 0")
_RANGE = _Check(
    lambda v: _are_above_zero(v) and len(v) == 2 and v[0] <= v[1],
    "is not two numbers above 0, the lesser first",
)
_DTYPE = _Check(
    lambda v: isinstance(v, str) and _precision(v) in NAMES, f"is none of {', '.join(NAMES)}"
)

# Keys by name, or `*` for all; a shape in a list is of what may be missing or null.
_PEAK = {"peak": _COST}
_SETTINGS = {
    "preset": _TEXT, "resolution_px": [_SIZE], "batch_size": [_SIZE], "dtype": [_DTYPE],
    "checkpointing": [_FLAG],
}  # fmt: skip
_FILE = {"date": [_TEXT], "device": _TEXT, "settings": _SETTINGS, "rows": {"*": {}}}
_TRAINED = {
    "parameters": [{"*": _COUNT}], "seconds_per_iteration": [_COST], "seconds_range": [_RANGE],
    "peak_allocated_bytes": [_COST], "predicted_bytes": [_PEAK],
}  # fmt: skip
_EVALUATED = {
    "per": _TEXT, "parameters": {"total": _COUNT}, "macs": _COUNT, "batches": {"*": {}},
}  # fmt: skip
_IMAGE = {"seconds_per_image": _COST, "seconds_range": _RANGE, "how": _TEXT}
_PREDICTED = {"peak_allocated_bytes": [_COST], "predicted_bytes": [_PEAK], "image": [_IMAGE]}
_TIMED = {"seconds_per_image": _COST, "seconds_range": _RANGE, "samples_s": _COSTS}


def read_profile(path: Path) -> dict[str, Any]:
    """The file's values; a DistilleryError names the first key that is wrong."""
    values = read_json(path, remedy=_REMEDY)
    if "fits" in values:
        raise DistilleryError(
            f"{path}: of profile --memory-gb, which measures nothing; move it out of {path.parent}"
        )
    try:
        _require(values, _FILE, "")
        for name, row in values["rows"].items():
            _require_row(row, f"rows.{name}")
    except ValueError as error:
        raise DistilleryError(f"{path}: {error}; {_REMEDY}") from None
    settings = values["settings"]
    dtype = _precision(settings.get("dtype") or "fp32")
    return {**values, "settings": {**settings, "dtype": dtype}}


def _require_row(row: Mapping[str, Any], place: str) -> None:
    if "batches" not in row:
        _require(row, _TRAINED, place)
        return
    _require(row, _EVALUATED, place)
    for batch, entry in row["batches"].items():
        where = f"{place}.batches.{batch}"
        _require(batch, _BATCH, where)
        _require(entry, _PREDICTED, where)
        if entry.get("seconds_per_image") is not None:
            _require(entry, _TIMED, where)
        if entry.get("peak_allocated_bytes") is None:
            _require(entry, {"predicted_bytes": _PEAK}, where)


def _require(value: Any, shape: Any, place: str) -> None:
    """ValueError for the first value that is not of its shape."""
    if isinstance(shape, list):
        if value is None:
            return
        (shape,) = shape
    if value is None:
        raise ValueError(f"{place}: has no value")
    if isinstance(shape, _Check):
        if not shape.holds(value):
            raise ValueError(f"{place}: {repr(value)[:40]} {shape.else_it}")
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"{place}: is no mapping")
    inner = dict.fromkeys(value, shape["*"]) if "*" in shape else shape
    for key in inner:
        _require(value.get(key), inner[key], f"{place}.{key}".removeprefix("."))
