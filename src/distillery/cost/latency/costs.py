"""What every choice of a plan costs: seconds by a table, parameters, multiply-accumulates.

In: the parts of a U-Net and a latency table. Out: costs of every form of every layer, of every
block beside its layers, and of what no choice changes. All three add up over layers and blocks.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from distillery.cost.counts import count_macs
from distillery.cost.latency.table import LatencyTable, remainder_s
from distillery.cost.latency.units import Anatomy, Tensors, Unit
from distillery.models.lowrank.removed import is_gone

KINDS = ("latency", "parameters", "macs")  # seconds of a batch; of the U-Net; of one image


@dataclass(frozen=True)
class Costs:
    """By `KINDS`: `blocks` beside their layers, `fixed` what is always there, `dense` the whole."""

    parts: Anatomy
    table: LatencyTable
    blocks: Mapping[str, np.ndarray]
    fixed: np.ndarray
    dense: np.ndarray

    def layer(self, name: str, rank: int | None) -> np.ndarray:
        """Of one layer at a rank; None is dense."""
        unit, shape = self.parts.layers[name], self.parts.shapes[name]
        weights = shape.num_dense if rank is None else shape.num_low_rank(rank)
        return np.array([self.table.layer_s(unit.key, rank), weights, weights * positions(unit)])

    def of(self, ranks: Mapping[str, int], removed: Collection[str] = ()) -> dict[str, float]:
        """Of any plan, at ranks that are no candidates too."""
        gone = {name for block in removed for name in self.parts.layers_gone_with(block)}
        kept = [self.layer(name, ranks.get(name)) for name in self.parts.layers if name not in gone]
        beside = [cost for name, cost in self.blocks.items() if name not in removed]
        total = np.sum([self.fixed, *kept, *beside], axis=0)
        return dict(zip(KINDS, total.tolist(), strict=True))


def costs_of(parts: Anatomy, table: LatencyTable) -> Costs:
    """The costs of a U-Net's choices; raises DistilleryError for a table that lacks a layer."""
    num_weights = sum(p.numel() for p in parts.model.module.parameters())
    dense = np.array([table.model_s(parts.model.key), num_weights, _macs(parts.model)])
    counted: dict[str, int] = {}
    blocks = {}
    for name, unit in parts.blocks.items():
        if unit.key not in counted:
            counted[unit.key] = _macs(unit)
        blocks[name] = np.array([
            remainder_s(table, parts, name),
            _num_weights_gone(parts, name),
            counted[unit.key] - sum(_dense_macs(parts, n) for n in parts.layers_of(name)),
        ])  # fmt: skip
    costs = Costs(parts, table, blocks, np.zeros(len(KINDS)), dense)
    everything = np.array(list(costs.of({}).values()))
    return Costs(parts, table, blocks, dense - everything, dense)


def positions(unit: Unit) -> int:
    """Where a layer's weight is applied for one image: tokens, or pixels of its output."""
    layer, shape = unit.module, unit.inputs[0]
    if isinstance(layer, nn.Linear):
        return math.prod(shape[1:-1])
    sizes = zip(
        shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
    )
    return math.prod((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, d, k, s in sizes)


def _dense_macs(parts: Anatomy, name: str) -> int:
    return parts.shapes[name].num_dense * positions(parts.layers[name])


def _macs(unit: Unit) -> int:
    tensors = Tensors(1, torch.device("meta"), torch.float32)
    with torch.no_grad():
        return count_macs(_Called(unit, tensors))


class _Called(nn.Module):
    """A unit with its inputs, as a module without arguments."""

    def __init__(self, unit: Unit, tensors: Tensors) -> None:
        super().__init__()
        self.unit, self.tensors = unit, tensors

    def forward(self) -> object:
        return self.unit.call(self.unit.module.float(), self.tensors)


def _num_weights_gone(parts: Anatomy, block: str) -> int:
    """Parameters that go with a block beside its layers' weights: biases, norms."""
    gone = sum(
        p.numel()
        for name, p in parts.blocks[block].module.named_parameters()
        if is_gone(f"{block}.{name}", [block])
    )
    return gone - sum(parts.shapes[name].num_dense for name in parts.layers_gone_with(block))
