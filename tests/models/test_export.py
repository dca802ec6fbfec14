import json
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from distillery.core.errors import DistilleryError
from distillery.models.export import assert_same_output, export_dense, save_model
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_pipeline, tiny_unet, unet_inputs

# Runs in an interpreter that never imports this package, and keeps what the pipeline draws.
PLAIN_DIFFUSERS = """
import sys, torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
images = pipeline("a red circle", num_inference_steps=2, output_type="np",
                  generator=torch.Generator().manual_seed(0)).images
assert "distillery" not in sys.modules
save_file({"images": torch.from_numpy(images).contiguous()}, sys.argv[2])
"""


@pytest.fixture(scope="module")
def student() -> LowRankUNet2DConditionModel:
    teacher = tiny_unet()
    return factorise_unet(teacher, plan_ranks(teacher))[0]


@pytest.fixture(scope="module")
def pipeline(student, tmp_path_factory) -> StableDiffusionPipeline:
    folder = tmp_path_factory.mktemp("teacher")
    tiny_pipeline().save_pretrained(folder)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, unet=student)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_exported_pipeline_needs_nothing_of_this_package(pipeline, tmp_path, python):
    export_dense(pipeline, tmp_path / "dense")
    arguments = [tmp_path / "dense", tmp_path / "images.safetensors"]
    command = [python / "python", "-c", PLAIN_DIFFUSERS, *arguments]
    subprocess.run(command, cwd=tmp_path, check=True)
    theirs = load_file(tmp_path / "images.safetensors")["images"]
    generator = torch.Generator().manual_seed(0)
    ours = pipeline(
        "a red circle", num_inference_steps=2, output_type="np", generator=generator
    ).images
    assert assert_same_output(lambda: theirs, lambda: torch.from_numpy(ours), ()) <= 1e-4


def test_exported_unet_is_plain_and_equal(student, tmp_path):
    export_dense(student, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "UNet2DConditionModel"
    assert "ranks" not in config
    loaded = UNet2DConditionModel.from_pretrained(tmp_path)
    assert assert_same_output(loaded, student, unet_inputs(), 1e-5) > 0


def test_exported_pipeline_keeps_its_other_parts(pipeline, tmp_path):
    exported = export_dense(pipeline, tmp_path)
    assert type(exported) is StableDiffusionPipeline
    assert type(exported.unet) is UNet2DConditionModel
    assert isinstance(pipeline.unet, LowRankUNet2DConditionModel)
    assert exported.vae is pipeline.vae
    assert exported.config.requires_safety_checker is False
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["_class_name"] == "StableDiffusionPipeline"


def test_saved_files_name_no_place_on_this_machine(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "theirs", safe_serialization=True)
    save_model(pipeline, tmp_path / "ours")
    place = str(tmp_path.parent)
    assert any(place in text for text in _json_texts(tmp_path / "theirs"))
    assert not any(place in text for text in _json_texts(tmp_path / "ours"))
    assert isinstance(DiffusionPipeline.from_pretrained(tmp_path / "ours"), DiffusionPipeline)


def _json_texts(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.rglob("*.json")]


def test_only_students_are_exported(tmp_path):
    with pytest.raises(DistilleryError, match="this is a UNet2DConditionModel"):
        export_dense(tiny_unet(), tmp_path)


def test_gate_reports_the_measured_difference():
    inputs = (torch.zeros(2, 3),)
    assert assert_same_output(lambda x: x, lambda x: (x + 3e-5,), inputs) == pytest.approx(3e-5)
    with pytest.raises(DistilleryError, match=r"differ by 0\.25, more than the tolerance 0\.0001"):
        assert_same_output(lambda x: x, lambda x: x + 0.25, inputs)
    with pytest.raises(DistilleryError, match="differ by nan"):
        assert_same_output(lambda x: x, lambda x: x * torch.nan, inputs)
    with pytest.raises(DistilleryError, match=r"differ in shape, \(2, 3\) and \(2, 1\)"):
        assert_same_output(lambda x: x, lambda x: x[:, :1], inputs)


def test_gate_compares_in_evaluation_mode_and_puts_training_back():
    model = torch.nn.Dropout(0.5).train()
    assert assert_same_output(model, lambda x: x, {"input": torch.ones(4)}.values(), 0) == 0
    assert model.training
