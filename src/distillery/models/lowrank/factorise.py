"""Students from teachers: factorise a U-Net layer by layer, rebalance its factors.

In: a dense U-Net, ranks by layer name, and for data-aware initialisation the moments of `moments`.
Out: a student and one report row per factorised layer. Not here: the factors of one weight
(`decompose`), which layers a student has (`unet`).
"""

import math
from collections.abc import Iterable, Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.layers import LowRankLayer, low_rank_layers
from distillery.models.lowrank.decompose import Factors, decompose, output_error
from distillery.models.lowrank.removed import layers_kept, removed_in
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.strict import assign_state


@torch.no_grad()
def factorise_unet(
    unet: UNet2DConditionModel,
    ranks: Mapping[str, int],
    init: str = "svd",
    *,
    removed: Iterable[str] = (),
    moments: Mapping[str, Tensor] | None = None,
) -> tuple[LowRankUNet2DConditionModel, list[dict]]:
    """A low-rank copy of `unet`, less the blocks `removed`, and what each factorised layer lost.

    `init`: `svd | data_aware` as in `decompose`. `moments` from `collect_second_moments` are needed
    by `data_aware`; with any init they add the output error to the report. All other layers are
    copied; device, dtype and training mode are those of `unet`. SD 2.1 takes about three minutes
    on one core.

    A row holds name, kind, shape, rank, full_rank, relative_error (Frobenius, of the weight),
    energy_kept (1 - relative_error^2, not below 0), relative_output_error (None without moments),
    params_before and params_after (bias included); floats are rounded to 6 places.

    Raises DistilleryError if `unet` is low-rank already or carries adapters, or ranks do not fit.
    """
    _check_dense(unet)
    student = LowRankUNet2DConditionModel.empty(unet.config, ranks, removed)
    state, rows = layers_kept(unet.state_dict(), removed_in(student.config)), []
    for name, layer in low_rank_layers(student).items():
        weight, moment = state.pop(f"{name}.weight"), _moment_of(name, moments, init)
        try:
            factors = decompose(weight, layer.rank, init, moment=moment)
        except DistilleryError as error:
            raise DistilleryError(f"{name}: {error}") from error
        state |= _factor_state(name, layer, factors, weight, state.pop(f"{name}.bias", None))
        rows.append(_report_row(name, layer, weight, factors, moment))
    assign_state(student, state).train(unet.training)
    return student, rows


def _check_dense(unet: nn.Module) -> None:
    """Raise DistilleryError if a U-Net is low-rank already or carries adapters."""
    if low_rank_layers(unet):
        raise DistilleryError("the U-Net is low-rank already; give the dense one, or to_dense()")
    if any(hasattr(module, "base_layer") for module in unet.modules()):
        raise DistilleryError("the U-Net carries adapters; merge or unload them first")


def _moment_of(name: str, moments: Mapping[str, Tensor] | None, init: str) -> Tensor | None:
    if moments is not None and name not in moments:
        raise DistilleryError(f"moments hold nothing for layer {name}; collect them for this U-Net")
    if init == "data_aware" and moments is None:
        raise DistilleryError("init data_aware needs moments; run collect_second_moments first")
    return None if moments is None else moments[name]


def _factor_state(name, layer, factors: Factors, weight: Tensor, bias: Tensor | None) -> dict:
    state = {
        f"{name}.expand.weight": _shaped(factors.a, layer.expand, weight),
        f"{name}.reduce.weight": _shaped(factors.b, layer.reduce, weight),
    }
    return state if bias is None else {**state, f"{name}.expand.bias": bias}


def _shaped(factor: Tensor, module: nn.Module, dense: Tensor) -> Tensor:
    return factor.reshape(module.weight.shape).to(dense.dtype).contiguous()


def _report_row(
    name: str, layer: LowRankLayer, weight: Tensor, factors: Factors, moment: Tensor | None
) -> dict:
    matrix = weight.flatten(1).double()
    size = float(matrix.norm())
    error = float((matrix - factors.a @ factors.b).norm()) / size if size else 0.0
    output = None if moment is None else output_error(matrix, factors, moment.to(matrix))
    num_bias = 0 if layer.bias is None else len(layer.bias)
    return {
        "name": name,
        "kind": "linear" if weight.ndim == 2 else "conv2d",
        "shape": list(weight.shape),
        "rank": layer.rank,
        "full_rank": min(matrix.shape),
        "relative_error": round(error, 6),
        "energy_kept": round(max(0.0, 1 - error**2), 6),
        "relative_output_error": None if output is None else round(output, 6),
        "params_before": math.prod(matrix.shape) + num_bias,
        "params_after": layer.rank * sum(matrix.shape) + num_bias,
    }


@torch.no_grad()
def rebalance(model: LowRankUNet2DConditionModel) -> LowRankUNet2DConditionModel:
    """Spread each singular value evenly over both factors, in place; products stay as they are.

    Scales column i of A by sqrt(|b_i| / |a_i|) and row i of B by the inverse. On `svd` factors
    |a_i| is the singular value and |b_i| = 1, so the result is `balanced`: U sqrt(S) and
    sqrt(S) V^T; applying it twice changes nothing. Components of zero size are left alone.
    """
    for layer in low_rank_layers(model).values():
        a, b = layer.expand.weight, layer.reduce.weight
        norm_a = a.double().flatten(1).norm(dim=0)
        norm_b = b.double().flatten(1).norm(dim=1)
        scale = torch.where((norm_a > 0) & (norm_b > 0), (norm_b / norm_a).sqrt(), 1)
        a.copy_(a.double() * scale.view(1, -1, *[1] * (a.ndim - 2)))
        b.copy_(b.double() / scale.view(-1, *[1] * (b.ndim - 1)))
    return model
