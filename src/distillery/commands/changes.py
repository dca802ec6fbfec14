"""What changed between two sets of params, in dotted keys.

In: plain nested values. Out: {dotted key: [before, after]}, and a line for each.
"""

import json
from collections.abc import Mapping
from typing import Any

MISSING = "(missing)"

Changes = dict[str, list[Any]]


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """Every key whose value differs, or that one side alone has (`MISSING` on the other)."""
    sides = [flat(before), flat(after)]
    return {
        key: [side.get(key, MISSING) for side in sides]
        for key in sorted({*sides[0], *sides[1]})
        if sides[0].get(key, MISSING) != sides[1].get(key, MISSING)
    }


def flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{start}{key}.")
        else:
            found[f"{start}{key}"] = value
    return found


def as_lines(changes: Changes) -> list[str]:
    """`seed: 0 -> 1`."""
    return [f"{row['key']}: {row['before']} -> {row['after']}" for row in rows(changes)]


def rows(changes: Changes) -> list[dict[str, str]]:
    """{"key", "before", "after"}, values as JSON."""
    return [
        {"key": key, "before": _shown(a), "after": _shown(b)} for key, (a, b) in changes.items()
    ]


def _shown(value: Any) -> str:
    return value if value == MISSING else json.dumps(value)
