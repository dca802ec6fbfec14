"""Decomposing the teacher's U-Net: the starting points of Stage I's low-rank variants.

In: the teacher's folder and cache, a rank rule, a method. Out: a folder with the low-rank student
and `layers.json`. `balanced` is the SVD's product in factors of equal size, `data_aware` weighs by
the layers' inputs, `planned` also spreads as many parameters over the layers by what their outputs
need; of these two `layers.json` also gives each layer's output error on cached inputs. `random` is
the ranks alone: its weights are drawn when a training starts. Not here: the mathematics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.cost.latency.costs import costs_of
from distillery.families.unet.calibration import Calibration
from distillery.families.unet.latency_plan import (
    TABLES,
    Choice,
    candidates,
    require_reach,
    share_target,
    table_for,
    teacher_parts,
)
from distillery.families.unet.plan_report import report
from distillery.families.unet.rivals import choose_by
from distillery.models.layers import layer_shapes
from distillery.models.load import load_unet
from distillery.models.lowrank.errors import Errors
from distillery.models.lowrank.factorise import factorise_unet, rebalance
from distillery.models.lowrank.planner import factorable, spectrum_ranks
from distillery.models.lowrank.ranks import align, plan_ranks, read_ranks, read_removed
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

LAYERS = "layers.json"
SVD = "svd"
BALANCED = "balanced"
RANDOM = "random"
DATA_AWARE = "data_aware"
PLANNED = "planned"
METHODS = (SVD, BALANCED, DATA_AWARE, PLANNED, RANDOM)


def choose_ranks(
    unet: UNet2DConditionModel, rank: Mapping[str, Any], *, other_params: int
) -> dict[str, int]:
    """Ranks by layer; `rank` are the fields of the params' `Rank`.

    `other_params` are those of text encoder and VAE, which `target_total` and `spectrum` count too.
    The rule `file` takes the ranks that `distillery ranks --out` wrote to it, as they are; those of
    all others become multiples of `multiple_of` where it is given.
    Raises DistilleryError for the rule `latency`, which needs more than the weights.
    """
    rule, value, keep_dense = rank["rule"], rank["value"], rank["keep_dense"]
    if rule == "file":
        return read_ranks(Path(rank["file"]), unet)
    if rule == "latency":
        raise DistilleryError("init_student.rank.rule: latency plans on the teacher's cache")
    if rule == "spectrum":
        ranks = spectrum_ranks(unet, target=value, other_params=other_params, keep_dense=keep_dense)
    else:
        ranks = plan_ranks(unet, rule, value, other_params=other_params, keep_dense=keep_dense)
    multiple_of = rank.get("multiple_of")
    return align(ranks, layer_shapes(unet), multiple_of) if multiple_of else ranks


@dataclass(frozen=True)
class Decomposition:
    """A method and what it needs; `rank` are the fields of the params' `Rank`.

    `other_params` are those of text encoder and VAE; `data_aware` and `planned` read
    `num_moment_samples` cached samples, `batch_size` at a time. `plan`: {"by", "share", "device"}
    of a start that is planned for a latency by a table of `tables`. `memo`: a folder in which what
    was measured of a teacher is kept for the next plan.
    """

    method: str
    rank: Mapping[str, Any]
    other_params: int
    num_moment_samples: int
    batch_size: int
    plan: Mapping[str, Any] | None = None
    tables: Path = TABLES
    memo: Path | None = None

    @property
    def wanted_plan(self) -> Mapping[str, Any] | None:
        """The plan, that of the rank rule `latency` too."""
        if self.plan is None and self.rank["rule"] == "latency":
            rank = self.rank
            return {"by": "latency", "share": rank["value"], "device": rank["device"]}
        return self.plan


def write_decomposition(
    wanted: Decomposition,
    teacher: Path,
    base: Path | None,
    out: Path,
    device: torch.device,
) -> None:
    """Decompose the teacher's U-Net by one method and write the student to the folder `out`.

    `base` is that view of the teacher's cache. Raises DistilleryError for a method or a rule that
    needs it, without one.
    """
    unet = load_unet(teacher, device)
    calibration = _Calibrated(wanted, teacher, base, unet)
    ranks, removed, plan = _choose(wanted, unet, calibration)
    if wanted.method == RANDOM:
        LowRankUNet2DConditionModel.empty(unet.config, ranks, removed).save_config(out)
        return
    moments = None
    if wanted.method in (DATA_AWARE, PLANNED):
        moments = calibration.moments({*_free(unet, wanted), *ranks})
    if wanted.method == PLANNED:
        keep_dense = wanted.rank["keep_dense"]
        target = LowRankUNet2DConditionModel.empty(unet.config, ranks).num_parameters()
        ranks = spectrum_ranks(unet, target=target, keep_dense=keep_dense, moments=moments)
    init = DATA_AWARE if moments else SVD
    student, layers = factorise_unet(unet, ranks, init, removed=removed, moments=moments)
    student.to("cpu")
    if wanted.method == BALANCED:
        rebalance(student)
    student.save_pretrained(out)
    sizes = {"teacher": unet.num_parameters(), "student": student.num_parameters()}
    report = {
        "init": wanted.method,
        "rank": dict(wanted.rank),
        "unet_parameters": sizes,
        "layers": layers,
    }
    write_json(out / LAYERS, report if plan is None else {**report, "plan": plan})


def _choose(
    wanted: Decomposition, unet: UNet2DConditionModel, calibration: "_Calibrated"
) -> tuple[dict[str, int], tuple[str, ...], dict | None]:
    """Ranks, removed blocks, and the report of a plan by latency."""
    rank = wanted.rank
    if wanted.wanted_plan is not None:
        if wanted.method == PLANNED:
            raise DistilleryError(f"init_student.rank.rule: latency: {_NO_PLANNED}")
        return _planned(wanted, wanted.wanted_plan, calibration)
    removed = read_removed(Path(rank["file"]), unet) if rank["rule"] == "file" else ()
    if removed and wanted.method == PLANNED:
        raise DistilleryError(f"{rank['file']}: {_NO_PLANNED}")
    return choose_ranks(unet, rank, other_params=wanted.other_params), removed, None


def _planned(
    wanted: Decomposition, plan: Mapping[str, Any], calibration: "_Calibrated"
) -> tuple[dict[str, int], tuple[str, ...], dict]:
    parts, rank = teacher_parts(calibration.teacher), wanted.rank
    table = table_for(plan["device"], parts, wanted.tables)
    ranks = candidates(parts, rank["multiple_of"] or table.multiple_of, rank["keep_dense"])
    costs = costs_of(parts, table)
    key = "init_student.rank.value" if wanted.plan is None else "init_student.plans: share"
    target = share_target(costs, plan["share"], key)
    if plan["by"] == "latency":
        require_reach(costs, [target], ranks, removes=True)
    errors = calibration.errors(ranks)
    choice: Choice = choose_by(plan["by"], costs, target, errors, ranks, rank["keep_dense"])
    said = report(costs, errors, [target], choice, rank["keep_dense"])
    return *choice, {"by": plan["by"], **said}


_NO_PLANNED = (
    "it is a plan already, and the method planned makes another of as many parameters; use "
    "data_aware"
)


class _Calibrated:
    """Moments and errors of a U-Net, each measured at most once; needs the teacher's cache."""

    def __init__(
        self, wanted: Decomposition, teacher: Path, base: Path | None, unet: UNet2DConditionModel
    ) -> None:
        self.wanted, self.teacher, self.base, self.unet = wanted, teacher, base, unet
        self._known: dict[str, Tensor] = {}

    def moments(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Second moments of the inputs or outputs of these layers."""
        if missing := set(names) - set(self._known):
            self._known |= self._records().moments(self.unet, missing)
        return self._known

    def errors(self, ranks: Mapping[str, Sequence[int]]) -> Errors:
        """What forms and removals do to the output."""
        names = _free(self.unet, self.wanted)
        return self._records().errors(self.unet, ranks, lambda: self.moments(names))

    def _records(self) -> Calibration:
        if self.base is None:
            raise DistilleryError(
                f"init_student: {self.wanted.method} needs --base, the cache's view base"
            )
        wanted = self.wanted
        return Calibration(
            self.teacher, self.base, wanted.num_moment_samples, wanted.batch_size, wanted.memo
        )


def _free(unet: UNet2DConditionModel, wanted: Decomposition) -> list[str]:
    return factorable(layer_shapes(unet), wanted.rank["keep_dense"])
