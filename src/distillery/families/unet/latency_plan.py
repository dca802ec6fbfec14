"""A student planned by measured latency: for every layer keep or factorise, for blocks remove.

In: the parts of a U-Net, a latency table, errors of forms and removals, targets. Out: the plan,
what it costs and errs, and the uniform rule and block removal alone at the same targets beside it.
Not here: tables, errors, the search itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.models.resnet import ResnetBlock2D

from distillery.core.errors import DistilleryError
from distillery.cost.accounting import load_architecture
from distillery.cost.latency.costs import KINDS, Costs
from distillery.cost.latency.make import predicted_by_name
from distillery.cost.latency.table import LatencyTable, read_tables
from distillery.cost.latency.units import Anatomy, aligned_ranks, anatomy
from distillery.models.lowrank.budgets import choose
from distillery.models.lowrank.choices import Block, Budget, Layer, Plan
from distillery.models.lowrank.errors import Errors
from distillery.models.lowrank.planner import factorable
from distillery.models.lowrank.ranks import plan_ranks

TABLES = Path("docs/results/latency")
FORMS = ("dense", "low_rank", "removed")
_RATIOS = 200


@dataclass(frozen=True)
class Target:
    """A limit on `kind`, one of `costs.KINDS`; `name` and `say` are for the user."""

    kind: str
    limit: float
    name: str
    say: Callable[[float], str] = "{:.6g}".format


def table_for(name: str, parts: Anatomy, folder: Path = TABLES) -> LatencyTable:
    """The table of that name that covers this U-Net, from `folder`; or a device's prediction.

    `name` may also be a file of tables with one that covers it. Raises DistilleryError if there is
    neither a table nor a prediction.
    """
    if name.endswith(".json"):
        tables = [table for table in read_tables(Path(name)) if table.covers(parts)]
        if len(tables) != 1:
            raise DistilleryError(
                f"{name}: {len(tables)} tables of it fit this U-Net ({parts.model.key}); give a "
                "file with one, or its name <device>-<dtype>-b<batch>"
            )
        return tables[0]
    fitting = [t for t in read_tables(folder) if t.name == name and t.covers(parts)]
    if len(fitting) > 1:
        raise DistilleryError(f"{folder}: {len(fitting)} tables {name} fit this U-Net; keep one")
    return fitting[0] if fitting else predicted_by_name(parts, name)


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


def uniform_plan(
    costs: Costs, targets: Sequence[Target], keep_dense: Sequence[str]
) -> dict[str, int] | None:
    """ELR's rule at the largest of 200 ratios that fits the targets; None if none does."""
    for step in range(_RATIOS, 0, -1):
        ratio = step / _RATIOS
        ranks = plan_ranks(costs.parts.shapes, "ratio", ratio, keep_dense=keep_dense)
        if fits(costs, targets, ranks):
            return ranks
    return None


def removal_plan(costs: Costs, targets: Sequence[Target], errors: Errors) -> tuple[str, ...] | None:
    """Blocks alone, as BK-SDM removes them, one after the other until the targets are met.

    Those of least measured error first; where none was measured in BK-SDM's own order: the second
    pair of every stage, then the middle, then the rest (Kim et al. 2023, section 3.1).
    None if all of them together do not suffice.
    """
    names = list(costs.parts.blocks)
    order = sorted(names, key=lambda n: (errors.removal.get(n, 0.0), _stage(n), names.index(n)))
    for count in range(len(order) + 1):
        if fits(costs, targets, {}, order[:count]):
            return tuple(sorted(order[:count]))
    return None


def _stage(name: str) -> int:
    if name.startswith("mid_block"):
        return 1
    return 0 if name.endswith(".1") else 2


def form_rows(parts: Anatomy, plan: Plan) -> list[dict[str, Any]]:
    """One row for each layer: name, form, and the rank of a low-rank one."""
    gone = {name for block in plan.removed for name in parts.layers_gone_with(block)}
    rows = []
    for name in parts.layers:
        rank = plan.ranks.get(name)
        form = FORMS[2] if name in gone else FORMS[0] if rank is None else FORMS[1]
        rows.append({"name": name, "form": form, "rank": rank})
    return rows


def level_rows(parts: Anatomy, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By level of the U-Net and kind of layer how many are kept, factorised and removed."""
    counted: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        place = counted.setdefault(
            (_level(row["name"]), _kind(parts, row["name"])), dict.fromkeys(FORMS, 0)
        )
        place[row["form"]] += 1
    return [{"level": level, "kind": kind, **forms} for (level, kind), forms in counted.items()]


def _level(name: str) -> str:
    head, _, rest = name.partition(".")
    return f"{head}.{rest.split('.')[0]}" if head in ("down_blocks", "up_blocks") else head


def _kind(parts: Anatomy, name: str) -> str:
    owner = next((block for block in parts.blocks if name.startswith(f"{block}.")), None)
    if owner is None:
        return "other"
    return "residual" if isinstance(parts.blocks[owner].module, ResnetBlock2D) else "attention"


def report(
    costs: Costs,
    errors: Errors,
    targets: Sequence[Target],
    plan: Plan,
    keep_dense: Sequence[str],
) -> dict[str, Any]:
    """All that is said of a plan: its layers, what it costs and errs, and the rivals' figures."""
    rows = form_rows(costs.parts, plan)
    uniform, removal = (
        uniform_plan(costs, targets, keep_dense),
        removal_plan(costs, targets, errors),
    )
    return {
        "layers": rows,
        "ranks": plan.ranks,
        "removed": list(plan.removed),
        "table": {
            "name": costs.table.name,
            "basis": costs.table.basis,
            "multiple_of": costs.table.multiple_of,
        },
        "targets": {target.name: target.limit for target in targets},
        "error_is": errors.meaning,
        "additivity": errors.additivity,
        "dense": costs.of({}),
        "planned": _figures(costs, errors, plan.ranks, plan.removed),
        "uniform": None if uniform is None else _figures(costs, errors, uniform, ()),
        "block_removal": None if removal is None else _figures(costs, errors, {}, removal),
        "levels": level_rows(costs.parts, rows),
    }


def _figures(
    costs: Costs, errors: Errors, ranks: Mapping[str, int], removed: Sequence[str]
) -> dict[str, Any]:
    totals = costs.of(ranks, removed)
    share = totals["latency"] / float(costs.dense[0])
    sizes = {"num_low_rank": len(ranks), "num_removed": len(removed)}
    return {**totals, "share": share, "error": errors.of(ranks, removed), **sizes}
