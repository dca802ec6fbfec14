"""A small teacher U-Net with every kind of layer that Stable Diffusion's has, and its student."""

import copy

import pytest
from diffusers import UNet2DConditionModel

from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_unet


@pytest.fixture(scope="session")
def teacher() -> UNet2DConditionModel:
    return tiny_unet()


@pytest.fixture(scope="session")
def svd_student(teacher: UNet2DConditionModel) -> LowRankUNet2DConditionModel:
    return factorise_unet(teacher, plan_ranks(teacher))[0]


@pytest.fixture
def unet(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy, so tests may change it."""
    return copy.deepcopy(teacher)


@pytest.fixture
def student(svd_student: LowRankUNet2DConditionModel) -> LowRankUNet2DConditionModel:
    """The SVD student of `unet` at a third of the rank; a copy, so tests may change it."""
    return copy.deepcopy(svd_student)
