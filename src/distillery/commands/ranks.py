"""`distillery ranks`: ranks per layer for a budget, and what every component then costs.

In: an architecture or a params file, one budget, and the teacher's folder if ranks shall follow its
spectra. Out: a table or JSON, and a file of ranks. Nothing is decomposed or trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillery.commands.amounts import amount, at_least
from distillery.commands.latency import load_parts
from distillery.core.errors import DistilleryError
from distillery.cost.counts import count_macs
from distillery.families.sizes import meta_inputs
from distillery.models.layers import layer_shapes
from distillery.models.lowrank import planner as rank_planner
from distillery.models.lowrank.planner import Cost
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

TARGETS = ("total", "unet", "flops")


def plan(
    preset: str, given: Mapping[str, str | float | None], *, teacher: Path | None = None
) -> dict[str, Any]:
    """Ranks for exactly one target, by the uniform rule, or with `teacher` by its spectra.

    `given` are targets by option, as they were typed: `--target-total`, parameters of U-Net, text
    encoder and VAE; `--target-unet`, of the U-Net; `--target-flops`, FLOPs (two per
    multiply-accumulate) of one U-Net evaluation for one image. Raises DistilleryError for none or
    several targets, for one out of reach, and for a target of time, which needs a device.
    """
    for option in ("--target-ms", "--target-share"):
        if given.get(option) is not None:
            raise DistilleryError(f"{option}: give --device NAME, whose latency table counts")
    options = {kind: f"--target-{kind}" for kind in TARGETS}
    targets = {kind: amount(given.get(option), option) for kind, option in options.items()}
    parts = load_parts(preset, teacher)
    try:
        planned = _planned(parts, targets, teacher)
    except DistilleryError as error:
        asked = ", ".join(f"{o} {v}" for o, v in given.items() if v is not None)
        raise DistilleryError(f"{asked}: {error}" if asked else str(error)) from error
    return {"preset": preset, **planned}


def _planned(
    parts: Mapping[str, nn.Module], targets: Mapping[str, float | None], teacher: Path | None
) -> dict[str, Any]:
    kinds = [kind for kind, value in targets.items() if value is not None]
    if len(kinds) != 1:
        raise DistilleryError("give exactly one of --target-total, --target-unet, --target-flops")
    kind, target = kinds[0], float(targets[kinds[0]])
    costs, budget = _budget(kind, target, parts)
    _require_within_reach(kind, target, costs, budget)
    shapes = layer_shapes(parts["unet"])
    uniform = rank_planner.uniform_ranks(shapes, costs, budget)
    planned = {"target": {"kind": kind, "value": target}, "rule": "uniform", "ranks": uniform}
    if teacher is not None:
        planned |= _by_spectrum(teacher, costs, budget, uniform)
    ranks = planned["ranks"]
    return {
        **planned,
        "components": _components(parts, ranks),
        "macs": _macs(parts, ranks),
        "layers": [
            {"name": n, "form": "low_rank" if n in ranks else "dense", "rank": ranks.get(n)}
            for n in shapes
        ],
    }


def _budget(
    kind: str, target: float, parts: Mapping[str, nn.Module]
) -> tuple[dict[str, Cost], float]:
    """Costs of the layers that may be decomposed, and what of the target is left for them."""
    unet = parts["unet"]
    shapes = layer_shapes(unet)
    names = rank_planner.factorable(shapes)
    if kind == "flops":
        inputs = _inputs(parts)
        costs, whole = rank_planner.mac_costs(unet, **inputs), count_macs(unet, **inputs)
        target /= 2
    else:
        costs = rank_planner.parameter_costs(shapes)
        counted = [unet] if kind == "unet" else [parts[n] for n in _COMPONENTS]
        whole = sum(p.numel() for part in counted for p in part.parameters())
    costs = {name: costs[name] for name in names}
    return costs, target - whole + sum(cost.dense for cost in costs.values())


def _require_within_reach(
    kind: str, target: float, costs: Mapping[str, Cost], budget: float
) -> None:
    """DistilleryError, in the target's own unit, where rank 1 everywhere is over the budget."""
    short = sum(cost.per_rank for cost in costs.values()) - budget
    if short > 0:
        least = target + short * (2 if kind == "flops" else 1)
        factor, unit = (1e9, "G FLOPs") if kind == "flops" else (1e6, "M")
        shown = f"{at_least(least / factor)}{unit}"
        raise DistilleryError(f"out of reach: rank 1 in every layer takes {shown}; allow more")


def _by_spectrum(
    teacher: Path, costs: Mapping[str, Cost], budget: float, uniform: Mapping[str, int]
) -> dict[str, Any]:
    from distillery.models.load import load_unet

    unet = load_unet(teacher)
    spectra = rank_planner.weight_spectra(unet, list(costs))
    ranks = rank_planner.allocate(spectra, costs, budget)
    errors = {
        name: rank_planner.predicted_error(spectra, chosen) / len(costs)
        for name, chosen in (("uniform", uniform), ("spectrum", ranks))
    }
    return {"rule": "spectrum", "ranks": ranks, "uniform": dict(uniform), "error": errors}


_COMPONENTS = ("unet", "text_encoder", "vae")


def _components(
    parts: Mapping[str, nn.Module], ranks: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """{component: {"before", "after"}}: blocks of the U-Net, its sum, the others, the total."""
    student = LowRankUNet2DConditionModel.empty(parts["unet"].config, ranks)
    pairs = {f"unet.{name}": _pair(m, student.get_submodule(name)) for name, m in _blocks(parts)}
    pairs["unet"] = _pair(parts["unet"], student)
    pairs |= {name: _pair(parts[name], parts[name]) for name in _COMPONENTS[1:]}
    totals = [pairs[name] for name in _COMPONENTS]
    pairs["total"] = {key: sum(pair[key] for pair in totals) for key in ("before", "after")}
    return pairs


def _blocks(parts: Mapping[str, nn.Module]) -> list[tuple[str, nn.Module]]:
    blocks = []
    for name, module in parts["unet"].named_children():
        several = isinstance(module, nn.ModuleList)
        blocks += (
            [(f"{name}.{i}", m) for i, m in enumerate(module)] if several else [(name, module)]
        )
    return [(name, m) for name, m in blocks if any(True for _ in m.parameters())]


def _pair(before: nn.Module, after: nn.Module) -> dict[str, int]:
    sizes = (sum(p.numel() for p in module.parameters()) for module in (before, after))
    return dict(zip(("before", "after"), sizes, strict=True))


def _macs(parts: Mapping[str, nn.Module], ranks: Mapping[str, int]) -> dict[str, int]:
    student = LowRankUNet2DConditionModel.empty(parts["unet"].config, ranks).to("meta")
    pair = zip(("before", "after"), (parts["unet"], student), strict=True)
    return {key: count_macs(unet, **_inputs(parts)) for key, unet in pair}


def _inputs(parts: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    tokens = parts["text_encoder"].config.max_position_embeddings
    return meta_inputs(parts["unet"], parts["unet"].config.sample_size, tokens)


def as_text(planned: Mapping[str, Any]) -> str:
    """Components before and after, FLOPs, predicted error, and the spread of the ranks."""
    rows = planned["components"].items()
    lines = [f"{'component':<24}{'dense':>12}{'low-rank':>12}{'share':>8}"]
    lines += [_line(name, pair["before"] / 1e6, pair["after"] / 1e6, "M") for name, pair in rows]
    flops = [2 * planned["macs"][key] / 1e9 for key in ("before", "after")]
    lines += [_line("GFLOP per evaluation", *flops, ""), ""]
    rule, ranks = planned["rule"], sorted(planned["ranks"].values())
    lines.append(
        f"{len(ranks)} layers low-rank by the {rule} rule, ranks {ranks[0]} to {ranks[-1]}"
        if ranks
        else "every layer stays dense"
    )
    if "error" in planned:
        errors = planned["error"]
        lines.append(
            "predicted error (mean share of each layer's energy that is discarded): uniform "
            f"{errors['uniform']:.4f}, by spectrum {errors['spectrum']:.4f}, ratio "
            f"{errors['spectrum'] / errors['uniform']:.3f}"
            if errors["uniform"]
            else "predicted error: none, the target leaves every layer as it is"
        )
    else:
        lines.append("Give --teacher FOLDER to allocate by its spectra and to predict errors.")
    return "\n".join(lines)


def _line(name: str, before: float, after: float, unit: str) -> str:
    share = f"{after / before:.1%}" if before else "-"
    return f"{name:<24}{before:>11.2f}{unit or ' '}{after:>11.2f}{unit or ' '}{share:>8}"
