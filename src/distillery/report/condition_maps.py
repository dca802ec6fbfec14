"""Condition maps of a run in numbers: how many there are of each kind, and what is without one.

In: `data/conditions/<part>/counts.json` of all parts. Out: a row a kind for the data page and its
table, and the first page's sentence about records that were left out. Not here: the counting.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillery.core.artifacts import read_json
from distillery.data.conditions.annotate import COUNTS
from distillery.data.conditions.own import MISSING, SIZE, UNREADABLE

REASONS = {MISSING: "missing", SIZE: "another size", UNREADABLE: "unreadable"}
COLUMNS = ("kind", "records", "maps", *REASONS, "resized")

Row = Mapping[str, Any]


def map_counts(conditions: Path | None) -> list[dict[str, Any]]:
    """A row a kind with `COLUMNS`, over all parts; none where the run made no maps.

    `first` names the first record that was left out, "" where none was.
    """
    paths = sorted(conditions.glob(f"*/{COUNTS}")) if conditions else []
    totals: dict[str, Counter[str]] = {}
    firsts: dict[str, str] = {}
    for path in paths:
        for kind, counts in read_json(path).items():
            numbers = {"maps": counts["maps"], "resized": counts.get("resized", 0)}
            totals.setdefault(kind, Counter()).update(numbers | counts["left_out"])
            firsts[kind] = firsts.get(kind) or counts.get("first", "")
    return [_row(kind, total) | {"first": firsts[kind]} for kind, total in totals.items()]


def _row(kind: str, total: Counter[str]) -> dict[str, Any]:
    records = total["maps"] + sum(total[reason] for reason in REASONS)
    return {"kind": kind, "records": records} | {name: total[name] for name in COLUMNS[2:]}


def left_out(rows: Sequence[Row]) -> str:
    """Which kinds lack a map for some records, and why, in a sentence; "" where none does."""
    parts = []
    for row in rows:
        reasons = [f"{name} {row[reason]}" for reason, name in REASONS.items() if row[reason]]
        if reasons:
            gone = row["records"] - row["maps"]
            parts.append(f"{row['kind']} {gone:,} of {row['records']:,} ({', '.join(reasons)})")
    return f"Records left out for want of a map: {'; '.join(parts)}." if parts else ""
