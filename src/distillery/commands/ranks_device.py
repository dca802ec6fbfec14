"""`distillery ranks --device`: a student for a device, within milliseconds and other targets.

In: an architecture, a table's name, targets, and the teacher's folder and cache where there are
any. Out: the plan as a dict for JSON, or as text. Nothing is decomposed or trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillery.commands.amounts import amount, as_given, at_least
from distillery.commands.latency import load_parts, parts_of
from distillery.core.artifacts import content_of, hash_json
from distillery.core.errors import DistilleryError
from distillery.cost.latency.costs import Costs, costs_of
from distillery.cost.latency.table import LatencyTable, read_tables, write_form
from distillery.cost.latency.units import Anatomy
from distillery.families.unet.calibration import Calibration
from distillery.families.unet.latency_plan import (
    TABLES,
    Target,
    candidates,
    make_plan,
    require_reach,
    share_target,
    table_for,
)
from distillery.families.unet.plan_report import report
from distillery.models.load import load_unet
from distillery.models.lowrank.errors import Errors, assumed_errors, weight_errors
from distillery.models.lowrank.planner import KEEP_DENSE

NUM_SAMPLES, BATCH_SIZE = 256, 32
_OTHERS = ("text_encoder", "vae")
Given = Mapping[str, str | float | None]  # by option: --target-ms, --target-share, ...


def plan(
    preset: str,
    device: str,
    given: Given,
    *,
    teacher: Path | None = None,
    cache: Path | None = None,
    tables: Path = TABLES,
    multiple_of: int | None = None,
    resolution_px: int | None = None,
) -> dict[str, Any]:
    """The plan of least error within all targets that are `given`, by the table of `device`.

    `cache`: the teacher's cache, whose training records say what removals and forms do; without
    it no block goes. `tables`: a file or folder. The plan's `fingerprint` covers all of that.
    Raises DistilleryError for no target, or targets out of reach.
    """
    models = load_parts(preset, teacher)
    parts = parts_of(models, resolution_px)
    table = _table(device, parts, tables)
    costs = costs_of(parts, table)
    targets = targets_of(costs, given, sum(models[name].num_parameters() for name in _OTHERS))
    ranks = candidates(parts, multiple_of or table.multiple_of, KEEP_DENSE)
    _require_reach(costs, targets, ranks, removes=cache is not None)
    errors = _errors(costs, ranks, teacher, cache)
    chosen = make_plan(costs, errors, targets, ranks)
    said = report(costs, errors, targets, (chosen.ranks, chosen.removed), KEEP_DENSE)
    asked = {name: value for name, value in given.items() if value is not None}
    made_of = {
        "table": write_form([table]), "targets": said["targets"], "ranks": ranks,
        "model": parts.model.key, "teacher": teacher and content_of(teacher),
        "cache": cache and content_of(cache / "base"),
    }  # fmt: skip
    named = {"preset": preset, "device": device, "rule": "latency", "given": asked}
    return {**named, "fingerprint": hash_json(made_of), **said}


def _require_reach(
    costs: Costs, targets: Sequence[Target], ranks: Mapping[str, Sequence[int]], *, removes: bool
) -> None:
    """`require_reach`, with what would widen it where no block may go."""
    try:
        require_reach(costs, targets, ranks, removes=removes)
    except DistilleryError as error:
        hint = "" if removes or "out of reach" not in str(error) else (
            "; with --teacher FOLDER --cache FOLDER blocks may go too, which reaches further"
        )  # fmt: skip
        raise DistilleryError(f"{error}{hint}") from error


def _table(device: str, parts: Anatomy, tables: Path) -> LatencyTable:
    """Of that device; DistilleryError that names the tables that there are."""
    try:
        return table_for(device, parts, tables)
    except DistilleryError as error:
        known = sorted({table.name for table in read_tables(tables)})
        there = f"; {tables} has {', '.join(known)}" if known and device not in known else ""
        if not tables.exists() and not device.endswith(".json"):
            there = f"; --tables {tables} is not there"
        raise DistilleryError(f"{error}{there}") from error


def targets_of(costs: Costs, given: Given, num_others: int) -> list[Target]:
    """Limits in the planner's units, with the user's units for messages."""
    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        raise DistilleryError(f"--device: give a target too, one or more of {', '.join(given)}")
    return [_target(costs, name, value, num_others) for name, value in wanted.items()]


def _target(costs: Costs, name: str, value: str | float, num_others: int) -> Target:
    number = amount(value, name)
    if name == "--target-ms":
        return Target("latency", number / 1e3, name, lambda s: f"{at_least(1e3 * s, 4)} ms")
    if name == "--target-share":
        if number > 1:
            raise DistilleryError(
                f"{name} {value}: a share of the dense U-Net's time, above 0 and at most 1, as 0.5"
            )
        target = share_target(costs, number, name)
        dense_s = target.limit / number
        said = f"of {1e3 * dense_s:.4g} ms"
        return replace(target, say=lambda s: f"{at_least(s / dense_s, 4)} {said}")
    if name == "--target-flops":
        return Target("macs", number / 2, name, _sayer(value, lambda macs: 2 * macs))
    if name == "--target-unet":
        return Target("parameters", number, name, _sayer(value, lambda size: size))
    if number <= num_others:
        raise DistilleryError(
            f"{name} {value}: text encoder and VAE alone have {num_others / 1e6:.1f}M parameters"
        )
    say = _sayer(value, lambda size: size + num_others)
    return Target("parameters", number - num_others, name, say)


def _sayer(value: str | float, convert: Callable[[float], float]) -> Callable[[float], str]:
    factor, suffix = as_given(value)
    return lambda amount: f"{at_least(convert(amount) / factor)}{suffix}"


def _errors(
    costs: Costs, ranks: Mapping[str, Sequence[int]], teacher: Path | None, cache: Path | None
) -> Errors:
    """By the best that is known of the teacher."""
    if teacher is None and cache is not None:
        raise DistilleryError("--cache: give --teacher FOLDER too, whose outputs it holds")
    if teacher is None:
        return assumed_errors(costs.parts.shapes, list(ranks))
    unet = load_unet(teacher, torch.device("cpu"))
    if cache is None:
        return weight_errors(unet, list(ranks))
    calibration = Calibration(teacher, cache / "base", NUM_SAMPLES, BATCH_SIZE)
    return calibration.errors(unet, ranks, lambda: calibration.moments(unet, ranks))


def as_text(said: Mapping[str, Any]) -> str:
    """The plan by level, its figures beside the rivals', and what its error is."""
    table = said["table"]
    lines = [
        f"table {table['name']}, {table['basis']}; ranks are multiples of {table['multiple_of']}",
        "",
        f"{'level':<16}{'kind':<12}{'kept':>6}{'factorised':>12}{'removed':>9}",
    ]
    lines += [
        f"{row['level']:<16}{row['kind']:<12}{row['dense']:>6}{row['low_rank']:>12}"
        f"{row['removed']:>9}"
        for row in said["levels"]
    ]
    lines += ["", f"{'':<24}{'ms':>9}{'of dense':>10}{'parameters':>12}{'GFLOP':>9}{'error':>10}"]
    dense = {**said["dense"], "share": 1.0, "error": 0.0}
    rows = {"dense": dense, "this plan": said["planned"], "uniform rule": said["uniform"]}
    rows["block removal alone"] = said["block_removal"]
    lines += [_line(name, figures) for name, figures in rows.items()]
    lines += ["", f"blocks removed: {', '.join(said['removed']) or 'none'}"]
    lines.append(f"error: {said['error_is']}")
    if pairs := said["additivity"]:
        lines.append(
            f"two changes at once make {pairs['median']} of the sum of both alone (median of "
            f"{pairs['num_pairs']} random pairs, {pairs['lowest']} to {pairs['highest']})"
        )
    else:
        lines.append(
            "no block may go, as no removal was measured: give --teacher FOLDER --cache FOLDER"
        )
    return "\n".join(lines)


def _line(name: str, figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return f"{name:<24}  not within these targets"
    error = "-" if figures["error"] is None else f"{figures['error']:.4g}"
    return (
        f"{name:<24}{1e3 * figures['latency']:>9.3f}{figures['share']:>10.3f}"
        f"{figures['parameters'] / 1e6:>11.2f}M{2 * figures['macs'] / 1e9:>9.2f}{error:>10}"
    )
