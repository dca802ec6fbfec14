"""What came of one ordeal, and the table of all.

In: how often something was tried and what was lost. Out: rows of Markdown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Result:
    """One row: how often it was tried, and what was lost, a line each."""

    name: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, problem: str | None) -> None:
        """Count one try; `problem` says what was lost, if anything."""
        self.tried += 1
        if problem:
            self.lost.append(problem)


def as_table(results: Sequence[Result]) -> str:
    """The table, and below it what was lost."""
    lines = ["| ordeal | tried | survived | lost | |", "|---|---|---|---|---|"]
    for row in results:
        numbers = f"{row.tried} | {row.tried - len(row.lost)} | {len(row.lost)}"
        lines.append(f"| {row.name} | {numbers} | {row.note} |")
    lost = [f"- {row.name}: {line}" for row in results for line in row.lost]
    return "\n".join([*lines, "", *lost]).rstrip()
