"""What is said of a student for a device: its layers, its figures, and its rivals' beside them.

In: costs, errors, targets and a choice of forms. Out: dicts for JSON. Not here: choosing, text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.models.resnet import ResnetBlock2D

from distillery.cost.latency.costs import Costs
from distillery.cost.latency.units import Anatomy
from distillery.families.unet.latency_plan import Choice, Target
from distillery.families.unet.rivals import removal_plan, uniform_plan
from distillery.models.lowrank.errors import Errors

FORMS = ("dense", "low_rank", "removed")


def form_rows(parts: Anatomy, choice: Choice) -> list[dict[str, Any]]:
    """One row for each layer: name, form, and the rank of a low-rank one."""
    ranks, removed = choice
    gone = {name for block in removed for name in parts.layers_gone_with(block)}
    rows = []
    for name in parts.layers:
        rank = ranks.get(name)
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
    choice: Choice,
    keep_dense: Sequence[str],
) -> dict[str, Any]:
    """All that is said of a plan: its layers, what it costs and errs, and the rivals' figures."""
    rows = form_rows(costs.parts, choice)
    rivals = {
        "uniform": uniform_plan(costs, targets, keep_dense),
        "block_removal": removal_plan(costs, targets, errors),
    }
    table = costs.table
    return {
        "layers": rows,
        "ranks": choice[0],
        "removed": list(choice[1]),
        "table": {"name": table.name, "basis": table.basis, "multiple_of": table.multiple_of},
        "targets": {target.name: target.limit for target in targets},
        "error_is": errors.meaning,
        "additivity": errors.additivity,
        "dense": costs.of({}),
        "planned": _figures(costs, errors, choice),
        **{name: rival and _figures(costs, errors, rival) for name, rival in rivals.items()},
        "levels": level_rows(costs.parts, rows),
    }


def _figures(costs: Costs, errors: Errors, choice: Choice) -> dict[str, Any]:
    ranks, removed = choice
    totals = costs.of(ranks, removed)
    share = totals["latency"] / float(costs.dense[0])
    sizes = {"num_low_rank": len(ranks), "num_removed": len(removed)}
    return {**totals, "share": share, "error": errors.of(ranks, removed), **sizes}
