"""Rank rules: which layers become low-rank, and at which rank, before anything is trained.

In: a model (on the meta device too) or its layer shapes. Out: {layer name: rank}; a layer that is
not in it stays dense. Only the `energy` rule looks at weights.
"""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.models.layers import LayerShape, layer_shapes
from distillery.models.lowrank.decompose import singular_values
from distillery.models.lowrank.removed import removable_blocks

KEEP_DENSE = ("conv_in", "conv_out")
RULES = ("ratio", "fixed", "energy", "target_total")
THIRD = 1 / 3  # ELR-Diffusion's ratio
_REMEDY = "write it with `distillery ranks --out`"


def plan_ranks(
    model: nn.Module | Mapping[str, LayerShape],
    rule: str = "ratio",
    value: float | None = None,
    *,
    other_params: int = 0,
    keep_dense: Sequence[str] = KEEP_DENSE,
) -> dict[str, int]:
    """Ranks by layer name for every Linear and Conv2d not matched by a `keep_dense` pattern.

    What `value` is follows the rule:
    `ratio`: floor(min(out, in*kh*kw) * value), at least 1; without a value 1/3, ELR-Diffusion's.
    `fixed`: that rank, or the full rank where that is less.
    `energy`: the least rank that keeps this share of the squared singular values (weights needed; a
    minute and a half on one core for SD 2.1).
    `target_total`: the largest uniform ratio with which model + `other_params` stays within `value`
    parameters, then single ranks added where they still fit, which leaves less than one
    layer's out + fan_in. Given shapes instead of a model, `other_params` also covers what they
    leave out (biases, norms). Pass `other_params=0` for a target of the U-Net alone.

    Whatever the rule, a layer stays dense where factors would not be smaller: r * (out + fan_in)
    >= out * fan_in. Patterns are shell-style, on full names.

    Raises DistilleryError for a missing or senseless value, a pattern that matches nothing, or a
    target out of reach (the message gives the feasible range).
    """
    shapes = model if isinstance(model, Mapping) else layer_shapes(model)
    shapes = _without(shapes, keep_dense)
    if rule == "ratio":
        ranks = _ratio_ranks(shapes, _positive(rule, THIRD if value is None else value, maximum=1))
    elif rule == "fixed":
        wanted = _positive(rule, value and int(value))
        ranks = {name: min(wanted, shape.full_rank) for name, shape in shapes.items()}
    elif rule == "energy":
        ranks = _energy_ranks(model, shapes, _positive(rule, value, maximum=1))
    elif rule == "target_total":
        fixed = other_params + _num_outside(model, shapes)
        ranks = _target_ranks(shapes, _positive(rule, value) - fixed, fixed)
    else:
        raise DistilleryError(f"rank rule {rule!r} is unknown; choose one of {', '.join(RULES)}")
    return {name: r for name, r in ranks.items() if _saves(shapes[name], r)}


def num_weights(shapes: Mapping[str, LayerShape], ranks: Mapping[str, int]) -> int:
    """Weight parameters of these layers, low-rank where `ranks` names them and smaller so."""
    return sum(
        min(shape.num_low_rank(ranks[name]), shape.num_dense) if name in ranks else shape.num_dense
        for name, shape in shapes.items()
    )


def _saves(shape: LayerShape, rank: int) -> bool:
    return shape.num_low_rank(rank) < shape.num_dense


def _ratio_ranks(shapes: Mapping[str, LayerShape], ratio: float) -> dict[str, int]:
    # 1e-9: 0.29 * 100 is 28.999999999999996 in floating point and means 29.
    return {n: max(1, math.floor(s.full_rank * ratio + 1e-9)) for n, s in shapes.items()}


def _energy_ranks(
    model: nn.Module | Mapping, shapes: Mapping[str, LayerShape], energy: float
) -> dict[str, int]:
    if not isinstance(model, nn.Module):
        raise DistilleryError("rank rule energy needs the model's weights, not only its shapes")
    ranks = {}
    for name in shapes:
        weight = model.get_submodule(name).weight
        if weight.is_meta:
            raise DistilleryError(f"rank rule energy needs weights, but {name} is on meta")
        kept = singular_values(weight).square().cumsum(0)
        # 1e-12: rounding in the sum must not ask for a rank more at energy 1.
        ranks[name] = 1 + int((kept < kept[-1] * (energy - 1e-12)).sum())
    return ranks


def _target_ranks(shapes: Mapping[str, LayerShape], budget: float, fixed: int) -> dict[str, int]:
    lowest = num_weights(shapes, dict.fromkeys(shapes, 1))
    highest = num_weights(shapes, {})
    if not lowest <= budget <= highest:
        raise DistilleryError(
            f"target of {budget + fixed:.0f} parameters is out of reach: these layers allow "
            f"{lowest + fixed} (every rank 1) to {highest + fixed} (all dense)"
        )
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        fits = num_weights(shapes, _ratio_ranks(shapes, middle)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return _fill(shapes, _ratio_ranks(shapes, low), budget)


def _fill(shapes: Mapping[str, LayerShape], ranks: dict[str, int], budget: float) -> dict[str, int]:
    """Spend what the uniform ratio left: one rank more per layer, dearest layers first."""
    left = budget - num_weights(shapes, ranks)
    for name in sorted(shapes, key=lambda n: (-shapes[n].num_low_rank(1), n)):
        before = min(shapes[name].num_low_rank(ranks[name]), shapes[name].num_dense)
        after = min(shapes[name].num_low_rank(ranks[name] + 1), shapes[name].num_dense)
        if before < after <= before + left:
            ranks[name] += 1
            left -= after - before
    return ranks


def _num_outside(model: nn.Module | Mapping, shapes: Mapping[str, LayerShape]) -> int:
    """Parameters that no rank changes: biases, norms and layers kept dense."""
    if isinstance(model, Mapping):
        total = sum(shape.num_dense for shape in model.values())
    else:
        total = sum(parameter.numel() for parameter in model.parameters())
    return total - sum(shape.num_dense for shape in shapes.values())


def _without(shapes: Mapping[str, LayerShape], patterns: Sequence[str]) -> dict[str, LayerShape]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shapes):
            raise DistilleryError(f"keep_dense: no layer matches {pattern!r}; check the name")
    return {
        name: shape
        for name, shape in shapes.items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _positive(rule: str, value: float | None, maximum: float = math.inf) -> float:
    if value is None or not 0 < value <= maximum:
        limit = "" if maximum == math.inf else f" and at most {maximum}"
        raise DistilleryError(f"rank rule {rule}: {value} given, but it must be above 0{limit}")
    return value


def read_ranks(path: Path, model: nn.Module) -> dict[str, int]:
    """The ranks in a file of `distillery ranks --out`, checked against `model`.

    Raises DistilleryError naming the layer or rank that does not fit.
    """
    ranks = read_json(path, remedy=_REMEDY).get("ranks")
    shapes = layer_shapes(model)
    if not isinstance(ranks, dict):
        raise DistilleryError(f"{path}: no ranks in it; {_REMEDY}")
    for name, rank in ranks.items():
        if name not in shapes:
            raise DistilleryError(f"{path}: the U-Net has no layer {name!r}; plan for this teacher")
        if type(rank) is not int or not 1 <= rank <= shapes[name].full_rank:
            raise DistilleryError(
                f"{path}: {name}: rank {rank!r} is not a whole number from 1 to "
                f"{shapes[name].full_rank}"
            )
    return ranks


def read_removed(path: Path, model: nn.Module) -> tuple[str, ...]:
    """The removed blocks in a file of `distillery ranks --out`, checked against `model`.

    None where the file names none. Raises DistilleryError naming the block that does not fit.
    """
    removed = read_json(path, remedy=_REMEDY).get("removed", [])
    blocks = removable_blocks(model)
    if not isinstance(removed, list):
        raise DistilleryError(f"{path}: removed: {removed!r} is no list of blocks; {_REMEDY}")
    for name in removed:
        if name not in blocks:
            raise DistilleryError(f"{path}: the U-Net has no block {name!r}; plan for this teacher")
    return tuple(removed)


def align(
    ranks: Mapping[str, int], shapes: Mapping[str, LayerShape], multiple_of: int
) -> dict[str, int]:
    """Ranks rounded down to multiples of `multiple_of`, but at least one of it.

    A layer stays dense where that saves nothing or is more than its full rank.
    """
    aligned = {n: max(multiple_of, r // multiple_of * multiple_of) for n, r in ranks.items()}
    return {n: r for n, r in aligned.items() if r <= shapes[n].full_rank and _saves(shapes[n], r)}
