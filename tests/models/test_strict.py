"""Students that plain diffusers would fill with random weights end there with an error."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel

from distillery.models.control_adapter import ControlAdapter
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.student_controlnet import PRESETS, StudentControlNet, build_student
from models.control_helpers import KRONECKER
from tiny_models import tiny_controlnet, tiny_pipeline


@pytest.fixture
def students(teacher, student) -> dict:
    controlnet = tiny_controlnet(teacher)
    return {
        LowRankUNet2DConditionModel: student,
        StudentControlNet: build_student(controlnet, PRESETS["original"], seed=0),
        ControlAdapter: ControlAdapter.from_unet(student, kronecker=KRONECKER),
    }


def test_plain_diffusers_finds_no_weights(students, tmp_path: Path) -> None:
    for kind, model in students.items():
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder)
        plain = UNet2DConditionModel if "UNet" in kind.__name__ else ControlNetModel
        with pytest.raises(OSError, match=r"diffusion_pytorch_model"):
            plain.from_pretrained(folder)
        again = kind.from_pretrained(folder).state_dict()
        assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_a_variant_of_diffusers_is_kept_apart(student, tmp_path: Path) -> None:
    student.half().save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "diffusion_pytorch_model.fp16-distillery.safetensors").is_file()
    with pytest.raises(OSError, match="fp16"):
        UNet2DConditionModel.from_pretrained(tmp_path, variant="fp16")
    half = LowRankUNet2DConditionModel.from_pretrained(
        tmp_path, variant="fp16", torch_dtype=torch.float16
    )
    assert half.dtype == torch.float16


def test_large_weights_are_sharded(student, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        UNet2DConditionModel.from_pretrained(tmp_path)
    again = LowRankUNet2DConditionModel.from_pretrained(tmp_path)
    assert torch.equal(again.conv_in.weight, student.conv_in.weight)


def test_a_pipeline_with_a_student_saves_and_loads(student, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(layers_per_block=2)
    pipeline.unet = student
    pipeline.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert type(again.unet) is LowRankUNet2DConditionModel
    assert torch.equal(again.unet.conv_in.weight, student.conv_in.weight)
