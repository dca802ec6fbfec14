"""What a file of `docs/results/profile/` must hold for the report to use it.

In: a file that `distillery profile --json` wrote, and that anyone may have edited. Out: its values,
with `dtype` as one of `fp32`, `bf16` and `fp16`, whatever an older file calls it. Not here: what
the figures mean.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.core.precision import NAMES, of_other_word

_REMEDY = "write it again with distillery profile --json"
_LARGEST = 1e30


def _ascending(ends: list[float]) -> list[float]:
    if ends != sorted(ends):
        raise ValueError("the greater stands first")
    return ends


def _named(dtype: Any) -> Any:
    """`fp16` also of `float16`, and `fp32` of `float32, but where a row says otherwise`."""
    word = dtype.split(",")[0] if isinstance(dtype, str) else dtype
    return of_other_word(word) or word


Text = Annotated[str, Field(min_length=1)]
Size = Annotated[int, Field(ge=1)]
Count = Annotated[float, Field(ge=0, lt=_LARGEST)]
Cost = Annotated[float, Field(gt=0, lt=_LARGEST)]
Range = Annotated[list[Cost], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
BatchSize = Annotated[str, Field(pattern="^[1-9][0-9]{0,5}$")]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Settings(_Shape):
    preset: Text
    resolution_px: Size | None = None
    batch_size: Size | None = None
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(NAMES)})$"), BeforeValidator(_named)] = "fp32"
    checkpointing: bool | None = None


class _Peak(_Shape):
    peak: Cost


class _Image(_Shape):
    seconds_per_image: Cost
    seconds_range: Range
    how: Text


class _Entry(_Shape):
    seconds_per_image: Cost | None = None
    seconds_range: Range | None = None
    samples_s: Annotated[list[Cost], Field(min_length=1)] | None = None
    peak_allocated_bytes: Cost | None = None
    predicted_bytes: _Peak | None = None
    image: _Image | None = None

    @model_validator(mode="after")
    def _check_there(self) -> "_Entry":
        needed = ["predicted_bytes"] * (self.peak_allocated_bytes is None)
        needed += ["seconds_range", "samples_s"] * (self.seconds_per_image is not None)
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: Field required")
        return self


class _Total(_Shape):
    total: Count


class _Evaluated(_Shape):
    per: Text
    parameters: _Total
    macs: Count
    batches: dict[BatchSize, _Entry]


class _Trained(_Shape):
    parameters: dict[str, Count] | None = None
    seconds_per_iteration: Cost | None = None
    seconds_range: Range | None = None
    peak_allocated_bytes: Cost | None = None
    predicted_bytes: _Peak | None = None


class _File(_Shape):
    date: Text | None = None
    device: Text
    settings: _Settings
    rows: dict[str, dict[str, Any]]


def read_profile(path: Path) -> dict[str, Any]:
    """The file's values; a DistilleryError names the first key that is wrong."""
    values = read_json(path, remedy=_REMEDY)
    if "fits" in values:
        raise DistilleryError(
            f"{path}: of profile --memory-gb, which measures nothing; move it out of {path.parent}"
        )
    place: tuple = ()
    try:
        file = _File.model_validate(values)
        for name, row in values["rows"].items():
            place = ("rows", name)
            (_Evaluated if "batches" in row else _Trained).model_validate(row)
    except ValidationError as error:
        raise DistilleryError(f"{path}: {_described(error, place)}; {_REMEDY}") from None
    return {**values, "settings": {**values["settings"], "dtype": file.settings.dtype}}


def _described(error: ValidationError, place: tuple) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in (*place, *first["loc"]) if part != "[key]")
    message = first["msg"].removeprefix("Value error, ")
    if message.endswith("Field required"):  # of an entry with its key
        return f"{key}{': ' if first['type'] == 'missing' else '.'}{message}"
    return f"{key}: {message}, not {str(first['input'])[:40]}"
