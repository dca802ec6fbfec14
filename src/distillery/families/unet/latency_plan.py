"""A student planned by measured latency: for every layer keep or factorise, for blocks remove.

In: the parts of a U-Net, a latency table, errors of forms and removals, targets. Out: the plan.
Not here: tables, errors, the search itself, plainer rules (`rivals`), words (`plan_report`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.cost.accounting import load_architecture
from distillery.cost.latency.costs import KINDS, Costs
from distillery.cost.latency.make import MEASURED, predicted_by_name, split_name
from distillery.cost.latency.roofline import MACHINES
from distillery.cost.latency.table import LatencyTable, read_tables
from distillery.cost.latency.units import Anatomy, aligned_ranks, anatomy
from distillery.models.lowrank.budgets import choose
from distillery.models.lowrank.choices import Block, Budget, Layer, Plan
from distillery.models.lowrank.errors import Errors
from distillery.models.lowrank.planner import factorable

TABLES = Path("docs/results/latency")
Choice = tuple[dict[str, int], tuple[str, ...]]  # ranks of factorised layers, removed blocks


@dataclass(frozen=True)
class Target:
    """A limit on `kind`, one of `costs.KINDS`; `name` and `say` are for the user."""

    kind: str
    limit: float
    name: str
    say: Callable[[float], str] = "{:.6g}".format


def table_for(name: str, parts: Anatomy, folder: Path = TABLES) -> LatencyTable:
    """The table of that name that covers this U-Net, from a folder or a file; or a prediction.

    A measured one is balanced: its parts add up to the model.

    `name` may also be a file of tables with one that covers it. Raises DistilleryError if there is
    neither a table nor a prediction.
    """
    if name.endswith(".json"):
        tables = [table for table in read_tables(Path(name)) if table.covers(parts)]
        if len(tables) != 1:
            raise DistilleryError(
                f"{name}: {len(tables)} tables of it fit this U-Net ({parts.model.key}); give a "
                "file with one, or --device NAME --tables FILE"
            )
        return as_planned(tables[0], parts)
    named = [table for table in read_tables(folder) if table.name == name]
    fitting = [table for table in named if table.covers(parts)]
    if len(fitting) > 1:
        raise DistilleryError(f"{folder}: {len(fitting)} tables {name} fit this U-Net; keep one")
    if fitting:
        return as_planned(fitting[0], parts)
    if named and split_name(name)[0] not in MACHINES:
        other = next(iter(named[0].models), "no model")
        lacks = "lacks layers or blocks of" if parts.model.key in named[0].models else (
            f"has it for {other}, and this is"
        )  # fmt: skip
        raise DistilleryError(
            f"device {name}: {folder} {lacks} {parts.model.key}; time this one with "
            "`distillery latency`"
        )
    return predicted_by_name(parts, name, folder)


def as_planned(table: LatencyTable, parts: Anatomy) -> LatencyTable:
    """The table that plans are made by: a measured one is balanced."""
    return table.balanced(parts) if table.basis == MEASURED else table


def teacher_parts(teacher: Path) -> Anatomy:
    """The parts of a teacher's U-Net in its folder, at its own resolution."""
    models = load_architecture(str(teacher))
    unet, text = models["unet"].config, models["text_encoder"].config
    return anatomy(models["unet"], side=unet.sample_size, num_tokens=text.max_position_embeddings)


def share_target(costs: Costs, share: float, name: str) -> Target:
    """A share of the dense model's latency, by the same table."""
    dense = float(costs.dense[KINDS.index("latency")])
    return Target(
        "latency", share * dense, name, lambda s: f"{s / dense:.4g} of {dense * 1e3:.4g} ms"
    )


def candidates(parts: Anatomy, multiple_of: int, keep_dense: Sequence[str]) -> dict[str, list[int]]:
    """Aligned ranks of every layer that may be factorised and has any."""
    ranks = {n: aligned_ranks(parts.shapes[n], multiple_of) for n in _free(parts, keep_dense)}
    return {name: choices for name, choices in ranks.items() if choices}


def _free(parts: Anatomy, keep_dense: Sequence[str]) -> list[str]:
    return factorable(parts.shapes, keep_dense)


def make_plan(
    costs: Costs, errors: Errors, targets: Sequence[Target], ranks: Mapping[str, Sequence[int]]
) -> Plan:
    """The plan of least error within the targets; `ranks` are the candidates of `candidates`.

    Blocks go only where the error of their removal was measured. Raises DistilleryError for
    targets out of reach.
    """
    places = [KINDS.index(target.kind) for target in targets]
    layers = {name: _layer(costs, errors, name, ranks.get(name, ()), places) for name in
              costs.parts.layers}  # fmt: skip
    blocks = {
        name: Block(tuple(costs.parts.layers_gone_with(name)), error, costs.blocks[name][places])
        for name, error in errors.removal.items()
    }
    beside = sum((c for n, c in costs.blocks.items() if n not in blocks), np.zeros(len(KINDS)))
    fixed = (costs.fixed + beside)[places]
    budgets = [
        Budget(target.name, target.limit, float(amount), target.say)
        for target, amount in zip(targets, fixed, strict=True)
    ]
    return choose(layers, blocks, budgets)


def require_reach(
    costs: Costs, targets: Sequence[Target], ranks: Mapping[str, Sequence[int]], *, removes: bool
) -> None:
    """DistilleryError for targets out of reach, before minutes go into measuring any error.

    `removes`: whether blocks may go.
    """
    shapes = costs.parts.shapes
    blocks = dict.fromkeys(costs.parts.blocks, 0.0) if removes else {}
    none = {name: np.zeros(shapes[name].full_rank + 1) for name in ranks}
    make_plan(costs, Errors("assumed", none, blocks), targets, ranks)


def _layer(
    costs: Costs, errors: Errors, name: str, ranks: Sequence[int], places: Sequence[int]
) -> Layer:
    forms = (None, *ranks)
    error = [0.0, *(float(errors.layers[name][rank]) for rank in ranks)]
    return Layer(
        forms, np.array(error), np.array([costs.layer(name, form)[places] for form in forms])
    )


def fits(costs: Costs, targets: Sequence[Target], ranks, removed=()) -> bool:
    """Whether any plan is within all targets."""
    totals = costs.of(ranks, removed)
    return all(totals[t.kind] <= t.limit * (1 + 1e-9) for t in targets)
