"""Scores that filters ask for and a source, or a row, lacks.

In: what the params ask for, the columns of a file, and its rows as they are stored. Out: nothing,
or one line with the file, the scores, the columns that are there and the keys to change; and lines
that say how many rows have passed a filter because they have no score. Not here: how files are
read, and whether the line is an error.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from distillery.core.errors import DistilleryError
from distillery.data.curation.filters import score_keys
from distillery.data.ingest.sample import COLUMN_ALIASES, find_metadata, shown_name

_NUM_SHOWN = 12
_MAX_VALUE_CHARS = 40


class AbsentScoreError(DistilleryError):
    """A file has no number for a score that a filter asks for."""


@dataclass(frozen=True)
class Asked:
    """A score and the full names of the params keys that filter by it."""

    score: str
    keys: tuple[str, ...]


def asked_scores(sections: Mapping[str, Mapping[str, Any]]) -> list[Asked]:
    """What filters of some sections, {`curate`: its values}, ask for; null asks for nothing."""
    keys = {
        score: tuple(f"{s}.{key}" for s, values in sections.items() if values[key] is not None)
        for score, key in score_keys().items()
    }
    return [Asked(score, names) for score, names in keys.items() if names]


def require_scores(
    file: Path | str,
    rows: Iterable[Mapping[str, Any]],
    asked: Sequence[Asked],
    columns: Iterable[str] = (),
) -> None:
    """Raise AbsentScoreError where a table has no column, or no number, of a score asked for.

    `rows` are read up to the first by which every score has had a number; their names count with
    `columns`, which may be more. Without rows and columns there is nothing to say.
    """
    without, names, held = {a.score: a for a in asked}, dict.fromkeys(columns), {}
    num_rows = 0
    for row in rows:
        num_rows += 1
        for score in without.keys() & find_metadata(row).keys():
            del without[score]
        if not without:
            return
        names |= dict.fromkeys(leaf_names(row))
        held = _first_values(row, without.keys() - held.keys()) | held
    folded = {name.lower() for name in names}
    absent = [a for a in without.values() if not folded.intersection(COLUMN_ALIASES[a.score])]
    if absent and (names or num_rows):
        raise _no_columns(file, list(names), absent)
    if num_rows:
        raise _no_numbers(file, held, list(without.values()))


def unjudged_lines(
    without: Mapping[str, int], num_rows: int, asked: Sequence[Asked]
) -> Iterator[str]:
    """For people: of each score asked for, how many rows have passed because they have none."""
    for a in asked:
        if num := without[a.score]:
            judged = "judged none of them" if num == num_rows else "let them pass"
            yield f"{num} of {num_rows} rows have no {a.score}; {_keys([a])} {judged}"


def count_without(raw: Path) -> tuple[dict[str, int], int]:
    """({score: rows without}, rows) of raw shards, by the statistics in the tables' footers."""
    num_rows, without = 0, Counter()
    for table in sorted(raw.glob("[0-9]*.parquet")):
        metadata = pq.read_metadata(table)
        num_rows += metadata.num_rows
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            without.update({c.path_in_schema: c.statistics.null_count for c in columns
                            if c.is_stats_set})  # fmt: skip
    return without, num_rows


def leaf_names(row: Mapping[str, Any]) -> list[str]:
    """The names in a row, those in a mapping as `scores.aesthetic`."""
    inner = [f"{name}.{key}" for name, v in row.items() if isinstance(v, Mapping) for key in v]
    return [*map(str, row), *inner]


def _no_columns(file: Path | str, names: list[str], lost: Sequence[Asked]) -> AbsentScoreError:
    what = "columns" if len(lost) > 1 else "column"
    return AbsentScoreError(
        f"{file}: no {what} {_and(a.score for a in lost)}, by which {_keys(lost)} filter; it has "
        f"{_nearest(names, lost)}; rename a column, or set {_keys(lost)} to null"
    )


def _no_numbers(
    file: Path | str, held: Mapping[str, str], lost: Sequence[Asked]
) -> AbsentScoreError:
    seen = ", ".join(f"{a.score} {held.get(a.score, 'null')}" for a in lost)
    return AbsentScoreError(
        f"{file}: no row has a number for {_and(a.score for a in lost)} (first: {seen}), by which "
        f"{_keys(lost)} filter; write numbers, or set {_keys(lost)} to null"
    )


def _first_values(row: Mapping[str, Any], scores: Iterable[str]) -> dict[str, str]:
    """What stands in the columns of scores, as it is shown."""
    folded = {str(name).lower(): value for name, value in row.items()}
    found = {s: [folded.get(a) for a in COLUMN_ALIASES[s]] for s in scores}
    there = {s: next((v for v in values if v is not None), None) for s, values in found.items()}
    return {s: repr(v)[:_MAX_VALUE_CHARS] for s, v in there.items() if v is not None}


def _nearest(names: Sequence[str], lost: Sequence[Asked]) -> str:
    """The columns, those most like a name that is looked for first."""
    wanted = [alias for a in lost for alias in COLUMN_ALIASES[a.score]]
    shown = sorted(names, key=lambda name: -_likeness(name, wanted))[:_NUM_SHOWN]
    rest = [f"{len(names) - _NUM_SHOWN} more"] if len(names) > _NUM_SHOWN else []
    return shown_name(", ".join([*shown, *rest])) or "no columns"


def _likeness(name: str, wanted: Iterable[str]) -> float:
    last = name.lower().rpartition(".")[2]
    return max(difflib.SequenceMatcher(None, last, other).ratio() for other in wanted)


def _keys(asked: Iterable[Asked]) -> str:
    return _and(key for a in asked for key in a.keys)


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
