"""`distillery compare RUN_A RUN_B`: what changed between two runs, and what that moved.

In: two folders with `params.yaml` and `metrics/`, or revisions of the repository here. Out: text
for a terminal, or JSON.
"""

import json
from collections import Counter
from collections.abc import Sequence

from distillery.commands.changes import as_lines
from distillery.commands.compare.runs import Comparison, Move, compare_runs
from distillery.families import STUDENTS
from distillery.metrics.catalog import CATALOG
from distillery.report import story

CLOSENESS = "prediction_distance"


def compare(before: str, after: str, *, as_json: bool) -> str:
    """The comparison as text, or as JSON."""
    comparison = compare_runs(before, after)
    return json.dumps(comparison.as_json(), indent=1) if as_json else as_text(comparison)


def as_text(found: Comparison) -> str:
    """What changed and what moved; of a model whose params changed also what did not move; times
    in one line, because they differ from run to run."""
    metrics = [move for move in found.moves if not move.is_time]
    moved = [move for move in metrics if move.moved]
    lines = [f"params: {len(found.params) or 'none'} changed"]
    lines += [f"  {line}" for line in as_lines(found.params)]
    lines.append(
        f"metrics: {len(moved)} of {len(metrics)} moved beyond their intervals"
        if moved
        else f"metrics: nothing moved beyond its interval ({len(metrics)} compared)"
    )
    lines += _table(moved)
    if still := [move for move in of_changed(found) if not move.moved]:
        lines += ["within their intervals, of the models whose params changed:", *_table(still)]
    times = [move for move in found.moves if move.is_time]
    if other := [move for move in times if move.moved]:
        lines.append(
            f"times: {len(other)} of {len(times)} differ beyond the spread of one run's "
            f"repetitions, as they do from run to run; most {_time(max(other, key=_share))}; "
            "--json or --html for all"
        )
    for title, names in (("first", found.only_before), ("second", found.only_after)):
        if names:
            lines.append(f"only in the {title}: {by_model(names)}")
    return "\n".join(lines)


def of_changed(found: Comparison) -> list[Move]:
    """The qualities that say most of the models whose params changed."""
    names = {
        model: (*STUDENTS[model.partition("/")[0]].shown.qualities, CLOSENESS)
        for model in found.changed_models
    }
    return [m for m in found.moves if m.metric in names.get(m.model, ()) and m.metric in CATALOG]


def _table(moves: Sequence[Move]) -> list[str]:
    """Aligned columns under their names; nothing of no moves."""
    if not moves:
        return []
    rows = [("model", "metric", "first", "second", "difference", "95% interval")]
    rows += [
        (m.model, m.metric, _number(m.before), _number(m.after), _signed(m.difference),
         f"{_number(m.ci[0])} to {_number(m.ci[1])}")
        for m in moves
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (map(str.ljust, row, widths) for row in rows)
    return [f"  {'  '.join(cells)}".rstrip() for cells in padded]


def by_model(names: Sequence[str]) -> str:
    """`unet/elr (3 metrics), ...` of names `<model> <metric>`; a single metric is named."""
    counts = Counter(name.rpartition(" ")[0] for name in names)
    alone = {name.rpartition(" ")[0]: name for name in names}
    return ", ".join(
        f"{model} ({count} metrics)" if count > 1 else alone[model]
        for model, count in counts.items()
    )


def _time(move: Move) -> str:
    return f"{move.model} {move.metric}, {_number(move.before)} s to {_number(move.after)} s"


def _share(move: Move) -> float:
    """How many times the longer time is the shorter."""
    low, high = sorted((move.before, move.after))
    return high / low if low > 0 else 0.0


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{_number(value)}"


def _number(value: float) -> str:
    return story.number(value).replace("−", "-")
