"""Rows of a list of URLs that filters refused before anything was downloaded.

In: their number by reason. Out: `refused.json` beside the raw shards, which curation counts with
its own, so that the funnel adds up; and an error where no row is left.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from distillery.core.artifacts import read_json, write_json
from distillery.core.errors import DistilleryError

T = TypeVar("T")
REFUSED = "refused.json"


def write_refused(raw: Path, refused: Mapping[str, int]) -> None:
    """Write {reason: number of rows}."""
    write_json(raw / REFUSED, dict(sorted(refused.items())))


def read_refused(raw: Path) -> dict[str, int]:
    """{reason: number of rows}; empty for sources that nothing is refused of."""
    path = raw / REFUSED
    return read_json(path) if path.is_file() else {}


def require_rows(rows: Iterable[T], source: Path, refused: Mapping[str, int]) -> Iterator[T]:
    """The rows; DistilleryError where there are none because all were refused."""
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    if is_empty and refused:
        most = max(refused, key=lambda reason: (refused[reason], reason))
        raise DistilleryError(
            f"{source}: all {sum(refused.values())} rows are refused by their columns, most by "
            f"{most} ({refused[most]}); loosen it under ingest.download.filters"
        )
