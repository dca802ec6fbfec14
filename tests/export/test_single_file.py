"""One file per student, read by diffusers: the same image, the same residuals."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from distillery.core.artifacts import hash_file
from distillery.core.errors import DistilleryError
from distillery.export import single_file
from distillery.models.gate import same_controlnet
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.student_controlnet import StudentControlNet


def draw(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    """An image [64, 64, 3] in [0, 1] after two steps from one noise."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        "a red circle", num_inference_steps=2, output_type="np", height=64, width=64,
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    return torch.from_numpy(images[0])


def student_pipeline(project: Path) -> StableDiffusionPipeline:
    """The teacher's pipeline with the low-rank U-Net."""
    unet = LowRankUNet2DConditionModel.from_pretrained(project / "models/unet/elr")
    return StableDiffusionPipeline.from_pretrained(
        project / "models/teacher", unet=unet, safety_checker=None
    )


def test_diffusers_draws_the_same_from_the_file(project: Path, tmp_path: Path) -> None:
    pipeline, out = student_pipeline(project), tmp_path / "a.safetensors"
    single_file.write_checkpoint(pipeline.unet, project / "models/teacher", out)
    again = StableDiffusionPipeline.from_single_file(
        str(out), config=str(project / "models/teacher"), local_files_only=True
    )
    assert (draw(pipeline) - draw(again)).abs().max() <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    with safe_open(out, framework="pt") as file:
        starts = {key.split(".")[0] for key in file.keys()}  # noqa: SIM118
    assert starts == {"model", "first_stage_model", "cond_stage_model"}


def test_half_precision_halves_the_file(project: Path, tmp_path: Path) -> None:
    unet = student_pipeline(project).unet
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for path in paths:
        single_file.write_checkpoint(unet, project / "models/teacher", path, fp16=True)
    assert {tensor.dtype for tensor in load_file(paths[0]).values()} == {torch.float16}
    assert hash_file(paths[0]) == hash_file(paths[1])


def test_the_second_versions_text_encoder_is_read_too(project: Path, tmp_path: Path) -> None:
    """OpenCLIP's names are those of a text encoder with its activation."""
    pipeline, teacher = student_pipeline(project), tmp_path / "teacher"
    pipeline.text_encoder.config.hidden_act = "gelu"
    pipeline.unet = pipeline.unet.to_dense()
    pipeline.save_pretrained(teacher)
    assert json.loads((teacher / "text_encoder/config.json").read_text())["hidden_act"] == "gelu"
    single_file.write_checkpoint(pipeline.unet, teacher, tmp_path / "b.safetensors")
    keys = load_file(tmp_path / "b.safetensors")
    assert "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in keys


def test_a_controlnet_of_full_size_is_read_by_diffusers(project: Path, tmp_path: Path) -> None:
    student = StudentControlNet.from_pretrained(project / "models/controlnet/original")
    out = single_file.write_controlnet(student, tmp_path / "c.safetensors")
    student.to_dense().save_config(tmp_path / "config")
    again = ControlNetModel.from_single_file(
        str(out), config=str(tmp_path / "config"), local_files_only=True
    )
    assert 0 <= same_controlnet(student, again) <= 1e-5


def test_nothing_is_left_where_the_gate_refuses(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that two tensors swap is noticed by the answers."""
    names = single_file.unet_names

    def swapped(keys):
        named = names(keys)
        a, b = (f"mid_block.resnets.{n}.conv1.weight" for n in (0, 1))
        return {**named, a: named[b], b: named[a]}

    monkeypatch.setattr(single_file, "unet_names", swapped)
    unet = student_pipeline(project).unet
    with pytest.raises(DistilleryError, match="outputs differ by"):
        single_file.write_checkpoint(
            unet, project / "models/teacher", tmp_path / "out/a.safetensors"
        )
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(DistilleryError, match=r"must end in \.safetensors"):
        single_file.write_checkpoint(unet, project / "models/teacher", tmp_path / "a.ckpt")
