"""Which rows of a table the filters on its columns refuse, before a row becomes an object.

In: a parquet file from anywhere, and filters. Out: one byte a row. DuckDB reads the columns that
the filters need, a part of the file in memory at a time, and evaluates their `condition`s. Not
here: tables of other formats, and what filters say of a decoded row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from distillery.data.curation.filters.base import SCORES, Candidate, Filter

_MEMORY_LIMIT = "512MB"
_BATCH_ROWS = 2**20
_UNKNOWN = {"width_px": 0, "height_px": 0, "caption": "", "sha256": "", "md5": ""}


def column_filters(filters: Sequence[Filter]) -> list[Filter]:
    """Those that need nothing but a row's URL and scores; at most 255."""
    return [rule for rule in filters if rule.condition() is not None]


def first_refusal(metadata: Mapping[str, Any], filters: Sequence[Filter]) -> str | None:
    """The reason of the first of `column_filters` that refuses a row, by its URL and scores."""
    known = {name: metadata.get(name) for name in ("url", *SCORES)}
    row = Candidate(**_UNKNOWN, **known)
    return next((rule.reason for rule in filters if rule.reject(row) is not None), None)


def judge_table(
    table: Path, filters: Sequence[Filter], aliases: Mapping[str, Sequence[str]]
) -> np.ndarray | None:
    """uint8 (num_rows,): 0 to keep a row, else the place, from 1, of the filter that refuses it.

    `aliases` has the lower-case names that a column may have in the file, the first one counting.
    None where SQL can't say: two columns of one name, text that is no UTF-8, a damaged file.
    """
    names, num_rows = pq.read_schema(table).names, pq.read_metadata(table).num_rows
    if len({name.lower() for name in names}) < len(names):
        return None
    verdicts = np.zeros(num_rows, dtype=np.uint8)
    query = refusals_query(names, filters, aliases)
    try:
        with duckdb.connect(config={"memory_limit": _MEMORY_LIMIT}) as database:
            found = database.sql(query, params=[str(table)])
            for batch in found.to_arrow_reader(_BATCH_ROWS):  # in any order
                verdicts[batch[0].to_numpy()] = batch[1].to_numpy()
    except duckdb.Error:
        return None
    return verdicts


def refusals_query(
    names: Sequence[str], filters: Sequence[Filter], aliases: Mapping[str, Sequence[str]]
) -> str:
    """SQL with one parameter, the file: number and verdict of every row that is refused."""
    columns = [_column(names, "url", aliases["url"], "VARCHAR")]
    columns += [_column(names, score, aliases[score], "DOUBLE") for score in SCORES]
    cases = " ".join(
        f"WHEN {rule.condition()} THEN {place}" for place, rule in enumerate(filters, start=1)
    )
    rows = f"SELECT {', '.join(columns)}, file_row_number AS number"
    return (
        f"SELECT number, (CASE {cases} END)::UTINYINT AS verdict FROM "
        f"({rows} FROM read_parquet(?, file_row_number = true)) WHERE verdict IS NOT NULL"
    )


def _column(names: Sequence[str], name: str, aliases: Sequence[str], kind: str) -> str:
    """The first value that is there under one of the names; NULL where none can be read."""
    folded = {n.lower(): n.replace('"', '""') for n in names}
    found = [f'TRY_CAST("{folded[alias]}" AS {kind})' for alias in aliases if alias in folded]
    return f"coalesce({', '.join([*found, 'NULL'])})::{kind} AS {name}"
