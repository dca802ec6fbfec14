"""ControlNet distillation in params.yaml: contradictions refused, names as the models have them."""

import typing
from typing import Any

import pytest
from pydantic import ValidationError

from distillery.families.controlnet.start import student_settings
from distillery.models.student_controlnet.model import StudentControlNet
from distillery.models.student_controlnet.modulation import MODULATIONS
from distillery.models.student_controlnet.presets import PRESETS, SETTINGS
from distillery.params import Params
from distillery.params.distill_controlnet import ControlnetVariant, DistillControlnet, StudentNet

OWN = {
    "channels": [32, 64], "layers_per_block": 1, "attention": "mid", "head_width": None,
    "norm_num_groups": None, "output_map": None, "modulation": "film", "hadamard_rank": 4,
    "hadamard_convs": ["conv1"],
}  # fmt: skip
VARIANT = {"init": "teacher", "terms": ["kd"], "learning_rate": 1e-3, "steps": 2}


def _section(params: Params, **changed: Any) -> DistillControlnet:
    return DistillControlnet(**{**params.distill_controlnet.model_dump(), **changed})


def test_a_term_without_a_factor_is_refused(default_params: Params) -> None:
    losses = {**default_params.distill_controlnet.losses.model_dump(), "lambda_kd": 0.0}
    with pytest.raises(ValidationError, match=r"terms: kd has lambda_kd 0 in losses; raise"):
        _section(default_params, losses=losses)


def test_a_term_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="terms: kd, kd names one twice"):
        ControlnetVariant(**{**VARIANT, "student": "loha", "terms": ["kd", "kd"]})


def test_names_are_those_of_the_models() -> None:
    named, _ = typing.get_args(ControlnetVariant.model_fields["student"].annotation)
    assert set(typing.get_args(named)) == set(PRESETS)
    assert set(StudentNet.model_fields) == set(SETTINGS) - {"init"}
    kinds = typing.get_args(StudentNet.model_fields["modulation"].annotation)
    assert set(kinds) == set(MODULATIONS)


def test_a_students_own_architecture_is_built_as_written(default_params: Params) -> None:
    variant = ControlnetVariant(**VARIANT, student=OWN)
    settings = student_settings(variant.student.model_dump(), variant.init)
    config = {"block_out_channels": (48, 96), "attention_head_dim": 2, "norm_num_groups": 16}
    student = StudentControlNet.empty(config, settings)
    assert tuple(student.config.block_out_channels) == (32, 64)
    assert student.config.modulation == "film"
    assert set(student.config.hadamard_ranks) == {
        name for name, _ in student.named_modules() if name.endswith("conv1")
    }
