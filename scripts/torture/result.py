"""What came of one ordeal, and the table of all.

In: how often something was tried and what was lost. Out: rows of Markdown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Result:
    """One row: how often it was tried, of which kinds, and what was lost, a line each."""

    name: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, problem: str | None, kind: str = "") -> None:
        """Count one try; `problem` says what was lost, if anything."""
        self.tried += 1
        self.kinds.update([kind] if kind else [])
        if problem:
            self.lost.append(problem)


def joined(parts: Sequence[Result]) -> Result:
    """One row of several that tried the same."""
    tried, lost = sum(p.tried for p in parts), [line for p in parts for line in p.lost]
    kinds = sum((p.kinds for p in parts), Counter())
    return Result(parts[0].name, tried, lost, parts[0].note, kinds)


def as_table(results: Sequence[Result]) -> str:
    """The table, and below it what was lost."""
    lines = ["| ordeal | tried | survived | lost | |", "|---|---|---|---|---|"]
    for row in results:
        numbers = f"{row.tried} | {row.tried - len(row.lost)} | {len(row.lost)}"
        kinds = ", ".join(f"{kind} {num}" for kind, num in sorted(row.kinds.items()))
        note = "; ".join(filter(None, [row.note, kinds]))
        lines.append(f"| {row.name} | {numbers} | {note} |")
    lost = [f"- {row.name}: {line}" for row in results for line in row.lost]
    return "\n".join([*lines, "", *lost]).rstrip()
