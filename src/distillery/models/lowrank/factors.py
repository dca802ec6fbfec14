"""Filling the low-rank layers of a skeleton with factors of a dense model's weights.

In: a skeleton with `LowRankLayer`s (as of `LowRankUNet2DConditionModel.empty`) and the dense model
it stands for. Out: the skeleton with values, and one report row per layer. What the factors are is
`decompose`'s business, which layers have them the skeleton's.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.layers import LowRankLayer, low_rank_layers
from distillery.models.lowrank.decompose import Factors, decompose, output_error
from distillery.models.lowrank.removed import layers_kept, removed_in
from distillery.models.strict import assign_state


@torch.no_grad()
def fill_factors(
    model: nn.Module,
    dense: nn.Module,
    init: str = "svd",
    *,
    moments: Mapping[str, Tensor] | None = None,
    ridge: float = 1e-2,
    seed: int = 0,
) -> list[dict]:
    """Give `model` the weights of `dense`, those of its low-rank layers factorised; report rows.

    The arguments and the rows are those of `factorise.factorise_unet`. All other layers are copied,
    but for those of blocks that `model` has removed; it takes over the training mode of `dense`.
    """
    state, rows = layers_kept(dense.state_dict(), removed_in(model.config)), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layer in low_rank_layers(model).items():
            weight, moment = state.pop(f"{name}.weight"), _moment_of(name, moments, init)
            factors = _factorise(name, layer, weight, init, moment, ridge)
            state |= _factor_state(name, layer, factors, weight, state.pop(f"{name}.bias", None))
            rows.append(_report_row(name, layer, weight, factors, moment))
    assign_state(model, state).train(dense.training)
    return rows


def check_dense(unet: nn.Module) -> None:
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


def _factorise(name, layer, weight, init, moment, ridge) -> Factors:
    if init == "random":
        layer.to_empty(device="cpu").reset_parameters()
        a, b = layer.expand.weight, layer.reduce.weight
        return Factors(*(t.detach().flatten(1).double().to(weight.device) for t in (a, b)))
    try:
        return decompose(weight, layer.rank, init, moment=moment, ridge=ridge)
    except DistilleryError as error:
        raise DistilleryError(f"{name}: {error}") from error


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
