"""What OUT holds: files of rows, read again to go on. No library is imported for it.

In: the folder for results. Out: their values, and the names of rows that failed.
"""

from pathlib import Path
from typing import Any

from distillery.core.artifacts import read_json
from distillery.core.errors import DamagedError

_REMEDY = "delete it, and what it should hold is measured again"


def files(out: Path) -> list[Path]:
    """All files of rows."""
    return sorted([*out.glob("runtime/*.json"), *out.glob("profile/*.json")])


def read_kept(path: Path) -> dict[str, Any]:
    """A file's values; DistilleryError for one that was damaged or edited."""
    values = read_json(path, remedy=_REMEDY)
    for key, kind in {"date": str, "device": str, "rows": dict, "failed": dict}.items():
        if not isinstance({"failed": {}, **values}.get(key), kind):
            raise DamagedError(f"{path}: {key} is not there or wrong; {_REMEDY}")
    if wrong := [name for name, row in values["rows"].items() if not isinstance(row, dict)]:
        raise DamagedError(f"{path}: rows.{wrong[0]} is no mapping; {_REMEDY}")
    return values


def failed_rows(out: Path) -> list[str]:
    """`<file>: <row>, <row>` of each file that says that some of its rows failed."""
    found = []
    for path in files(out):
        values = read_kept(path)
        names = [name for name, row in values["rows"].items() if "error" in row]
        if names := [*names, *values.get("failed", {})]:
            found.append(f"{path.relative_to(out)}: {', '.join(names)}")
    return found
