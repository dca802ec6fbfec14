"""Columns that hold the user's own condition maps, taken along undecoded.

In: a row's values, the names of columns. Out: encoded maps by column, or an error for a column that
is not there. Not here: decoding them (`data.conditions.own`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.data.ingest.sample import MAX_IMAGE_BYTES, RawSample, split_suffix


def require_columns(file: Path | str, names: Iterable[str], wanted: Sequence[str]) -> None:
    """Raise DistilleryError for a column of maps that a table does not have."""
    names = list(names)
    if lost := [name for name in wanted if name not in names]:
        raise DistilleryError(
            f"{file}: no column {lost[0]} among {', '.join(names)}; correct ingest.map_columns"
        )


def map_bytes(value: Any) -> bytes | None:
    """The encoded image in a cell: bytes, or a struct that holds them; None for anything else."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return data if isinstance(data, bytes) and 0 < len(data) <= MAX_IMAGE_BYTES else None


def with_maps(sample: RawSample, maps: Mapping[str, bytes | None]) -> RawSample:
    """The sample with those of its maps that are there; none without its image."""
    found = {name: data for name, data in maps.items() if data is not None}
    return replace(sample, maps=found) if found and sample.image is not None else sample


def name_of(path: Any) -> str | None:
    """What a row calls its image: the file's name without folders and suffix, None without one."""
    base = PurePosixPath(path).name if isinstance(path, str) else ""
    return None if not base or base.startswith(".") else split_suffix(base)[0]
