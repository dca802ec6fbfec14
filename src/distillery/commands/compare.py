"""`distillery compare RUN_A RUN_B`: what changed between two runs, and what that moved.

In: two folders with `params.yaml` and `metrics/`, or revisions of the repository here. Out: text
for a terminal, or JSON.
"""

import json
from pathlib import Path

from distillery.commands.compare_runs import compare_runs


def compare(before: str, after: str, *, as_json: bool, repository: Path = Path()) -> str:
    """The comparison as text, or as JSON."""
    comparison = compare_runs(before, after, repository)
    return json.dumps(comparison.as_json(), indent=1) if as_json else comparison.as_text()
