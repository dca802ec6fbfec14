"""Students from teachers: factorise a U-Net layer by layer, rebalance factors, build a variant.

In: a dense U-Net (or only its configuration), ranks by layer name, and for data-aware
initialisation the moments of `moments`. Out: a student and one report row per factorised layer.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.models.layers import low_rank_layers
from distillery.models.lowrank.decompose import INITS
from distillery.models.lowrank.factors import check_dense, fill_factors
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel, unet_arguments


def factorise_unet(
    unet: UNet2DConditionModel,
    ranks: Mapping[str, int],
    init: str = "svd",
    *,
    removed: Iterable[str] = (),
    moments: Mapping[str, Tensor] | None = None,
    ridge: float = 1e-2,
    seed: int = 0,
) -> tuple[LowRankUNet2DConditionModel, list[dict]]:
    """A low-rank copy of `unet`, less the blocks `removed`, and what each factorised layer lost.

    `init`: `svd | balanced | data_aware` as in `decompose`, or `random`: factors drawn from
    `seed`, all other layers copied. `moments` from `collect_second_moments` are needed by
    `data_aware`; with any init they add the output error to the report. SD 2.1 takes
    about three minutes on one core.

    A row holds name, kind, shape, rank, full_rank, relative_error (Frobenius, of the weight),
    energy_kept (1 - relative_error^2, not below 0), relative_output_error (None without moments),
    params_before and params_after (bias included); floats are rounded to 6 places.

    Raises DistilleryError if `unet` is low-rank already or carries adapters, or ranks do not fit.
    """
    check_dense(unet)
    model = LowRankUNet2DConditionModel.empty(unet.config, ranks, removed)
    rows = fill_factors(model, unet, init, moments=moments, ridge=ridge, seed=seed)
    return model, rows


@torch.no_grad()
def rebalance(model: LowRankUNet2DConditionModel) -> LowRankUNet2DConditionModel:
    """Spread each singular value evenly over both factors, in place; products stay as they are.

    Scales column i of A by sqrt(|b_i| / |a_i|) and row i of B by the inverse. On `svd` factors
    |a_i| is the singular value and |b_i| = 1, so the result is `balanced`, with no dense weight
    needed; applying it twice changes nothing. Components of zero size are left alone.
    """
    for layer in low_rank_layers(model).values():
        a, b = layer.expand.weight, layer.reduce.weight
        norm_a = a.double().flatten(1).norm(dim=0)
        norm_b = b.double().flatten(1).norm(dim=1)
        scale = torch.where((norm_a > 0) & (norm_b > 0), (norm_b / norm_a).sqrt(), 1)
        a.copy_(a.double() * scale.view(1, -1, *[1] * (a.ndim - 2)))
        b.copy_(b.double() / scale.view(-1, *[1] * (b.ndim - 1)))
    return model


def build_student(
    teacher: UNet2DConditionModel | Mapping,
    *,
    architecture: str = "low_rank",
    init: str = "svd",
    ranks: Mapping[str, int] | None = None,
    removed: Iterable[str] = (),
    seed: int = 0,
    moments: Mapping[str, Tensor] | None = None,
) -> UNet2DConditionModel:
    """The starting point of a Stage I variant, from the teacher U-Net or only its config.

    | variant | architecture | init |
    |---|---|---|
    | `standard_no_kd` | dense | random |
    | `decomposed_no_kd`, `random_kd` | low_rank | random |
    | `elr`, `svd_only`, `svd_no_kd` | low_rank | svd (or balanced, data_aware) |

    `dense` with `teacher` is a copy. `random` draws every layer from `seed` alone, on the CPU,
    whatever the state of the global generator, which it leaves untouched.
    Raises DistilleryError for a combination that does not exist.
    """
    _check_combination(teacher, architecture, init, ranks)
    if architecture == "dense" and init == "teacher":
        return copy.deepcopy(teacher)
    if init != "random":
        return factorise_unet(teacher, ranks, init, removed=removed, moments=moments)[0]
    config = teacher if isinstance(teacher, Mapping) else teacher.config
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        if architecture == "dense":
            return UNet2DConditionModel(**unet_arguments(config))
        return LowRankUNet2DConditionModel(**unet_arguments(config), ranks=ranks, removed=removed)


def _check_combination(teacher, architecture: str, init: str, ranks) -> None:
    allowed = {"dense": ("teacher", "random"), "low_rank": ("random", *INITS)}
    if architecture not in allowed:
        raise DistilleryError(f"architecture {architecture!r} is unknown; use dense or low_rank")
    if init not in allowed[architecture]:
        raise DistilleryError(
            f"architecture {architecture} has no init {init!r}; "
            f"use one of {', '.join(allowed[architecture])}"
        )
    if architecture == "low_rank" and ranks is None:
        raise DistilleryError("a low-rank student needs ranks; plan them with plan_ranks")
    if architecture == "dense" and ranks:
        raise DistilleryError("a dense student takes no ranks; drop them or use low_rank")
    if init != "random" and isinstance(teacher, Mapping):
        raise DistilleryError(f"init {init} needs the teacher's weights, not only its config")
