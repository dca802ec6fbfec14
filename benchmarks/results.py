"""What a benchmark found: printed, and kept where it is asked for.

In: a dict. Out: JSON with the date, the machine and the versions of what was measured. Not here:
tables for people.
"""

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.core.code.libraries import library_versions


def keep(found: Mapping[str, Any], out: Path | None, libraries: tuple[str, ...] = ()) -> None:
    """Print `found`, and write it to `out`; `libraries` as they are imported."""
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "versions": library_versions(libraries),
    }
    text = json.dumps({**about, **found}, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
