"""Costs of plans add up to what the student itself has: parameters, operations, seconds."""

import pytest
import torch

from distillery.cost.counts import count_macs
from distillery.cost.latency.costs import costs_of
from distillery.cost.latency.make import predict_table
from distillery.cost.latency.roofline import Machine
from distillery.cost.latency.table import plan_s
from distillery.cost.latency.units import anatomy
from distillery.cost.workload import Workload
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.removed import layers_kept
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_unet

REMOVED = ["down_blocks.0.attentions.0", "mid_block.resnets.1", "up_blocks.1.resnets.0"]


@pytest.fixture(scope="module")
def costs():
    parts = anatomy(tiny_unet(), side=8, num_tokens=5)
    machine = Machine(1e9, 1e9, 1e-6)
    table = predict_table(parts, machine, name="t", multiple_of=8, dtype="float32", batch_size=2)
    return costs_of(parts, table)


@pytest.mark.parametrize("removed", [[], REMOVED], ids=["whole", "pruned"])
@pytest.mark.parametrize("low_rank", [False, True])
def test_a_plan_costs_what_its_student_has(costs, removed, low_rank):
    unet = costs.parts.model.module
    ranks = layers_kept(plan_ranks(unet), removed) if low_rank else {}
    found = costs.of(ranks, removed)
    student = LowRankUNet2DConditionModel.empty(unet.config, ranks, removed).to("meta")
    assert found["parameters"] == sum(p.numel() for p in student.parameters())
    work = Workload.of(student, 1, 5, side=8, device=torch.device("meta"))
    macs = count_macs(
        student, work.sample, work.timestep, encoder_hidden_states=work.encoder_hidden_states
    )
    assert found["macs"] == macs
    assert found["latency"] == pytest.approx(plan_s(costs.table, costs.parts, ranks, removed))


def test_dense_is_everything(costs):
    assert list(costs.of({}).values()) == pytest.approx(costs.dense.tolist())
    assert all(costs.fixed[:2] > 0)
