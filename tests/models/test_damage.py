"""Damage of removals and approximations, measured; the U-Net is the same afterwards."""

import numpy as np
import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.models.lowrank.damage import (
    Damage,
    additivity,
    approximation,
    probe_rank,
    removal_errors,
    sensitivities,
)
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.moments import collect_second_moments
from distillery.models.lowrank.removed import removable_blocks
from distillery.models.lowrank.spectra import discarded, output_spectra, weight_spectra
from tiny_models import unet_inputs

BATCHES = [unet_inputs(seed=seed) for seed in (1, 2)]
LAYERS = ["mid_block.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in"]


@pytest.fixture
def damage(unet):
    return Damage(unet, BATCHES)


@torch.no_grad()
def distance(student, unet) -> float:
    pairs = [(student(**batch).sample, unet(**batch).sample) for batch in BATCHES]
    lost = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return lost / sum(float(b.double().square().sum()) for _, b in pairs)


def test_nothing_changed_is_no_damage(damage):
    assert damage.now() == 0


def test_removals_are_measured_as_the_student_without_the_block(damage, unet):
    errors = removal_errors(damage)
    assert list(errors) == list(removable_blocks(unet))
    for name in ("mid_block.resnets.1", "up_blocks.1.attentions.0"):
        student = factorise_unet(unet, {}, removed=[name])[0]
        assert errors[name] == pytest.approx(distance(student, unet), rel=1e-4)
        assert errors[name] > 0


def test_the_unet_is_as_before(damage, unet, teacher):
    removal_errors(damage)
    weight = approximation(unet, LAYERS[0], 4, None)
    assert damage.of("mid_block.attentions.0", (LAYERS[0], weight)) > 0
    with pytest.raises(RuntimeError):
        damage.of((LAYERS[0], torch.zeros(1, 1)))
    assert damage.now() == 0
    found = unet.state_dict()
    assert all(torch.equal(found[name], value) for name, value in teacher.state_dict().items())


def test_sensitivities_give_the_distance_of_the_low_rank_layer(damage, unet):
    moments = collect_second_moments(unet, BATCHES, names=LAYERS)
    for used, spectra in (
        (None, weight_spectra(unet, LAYERS)),
        (moments, output_spectra(unet, moments)),
    ):
        ranks = {name: [4, 8, 16] for name in LAYERS}
        found = sensitivities(damage, spectra, ranks, used)
        for name in LAYERS:
            lost = discarded(spectra[name])
            rank = probe_rank(lost, ranks[name])
            init = "svd" if used is None else "data_aware"
            student = factorise_unet(unet, {name: rank}, init, moments=used)[0]
            assert found[name] * lost[rank] == pytest.approx(distance(student, unet), rel=1e-3)


def test_a_layer_without_energy_costs_nothing(damage):
    spectra = {LAYERS[0]: np.zeros(32)}
    assert sensitivities(damage, spectra, {LAYERS[0]: [8]}) == {LAYERS[0]: 0.0}


def test_the_probe_discards_a_hundredth():
    lost = np.array([1.0, 0.5, 0.02, 0.001, 0.0])
    assert probe_rank(lost, [1, 2, 3, 4]) == 2
    assert probe_rank(lost, [3, 4]) == 3


def test_additivity_of_pairs(damage, unet):
    changes = {name: name for name in removable_blocks(unet)}
    changes |= {name: (name, approximation(unet, name, 4, None)) for name in LAYERS}
    found = additivity(damage, changes, num_pairs=6)
    assert 0 < found["num_pairs"] <= 6
    assert 0 < found["lowest"] <= found["median"] <= found["highest"]
    assert additivity(damage, changes, num_pairs=6) == found
    assert additivity(damage, {}, num_pairs=6)["num_pairs"] == 0
    nothing = {name: (name, unet.get_submodule(name).weight.data) for name in LAYERS}
    assert additivity(damage, nothing, num_pairs=2)["num_pairs"] == 0


def test_without_inputs_nothing_is_measured(unet):
    with pytest.raises(DistilleryError, match="at least one batch"):
        Damage(unet, [])
