"""Every family's students are put together from their folders as they are meant to be used."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel

from cache_helpers import write_maps
from distillery.core.errors import DistilleryError
from distillery.families.description import Description, Sampling, write_description
from distillery.families.load import (
    Folders,
    attach,
    load_student,
    open_maps,
)
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.load import load_controlnet, load_unet
from distillery.models.lora.files import save_lora
from distillery.models.lora.layers import add_lora, lora_layers
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.student_controlnet.model import StudentControlNet, build_student
from distillery.models.student_controlnet.presets import PRESETS
from distillery.sampling.sampler import Sampler
from distillery.teacher.load import load_teacher


@pytest.fixture(scope="module")
def models(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    unet = load_unet(tiny_teacher)
    elr = factorise_unet(unet, plan_ranks(unet))[0]
    elr.save_pretrained(root / "unet/elr")
    elr.save_pretrained(root / "unet/elr/seed-1")
    ControlAdapter.from_unet(elr, conditions=("sketch", "canny")).save_pretrained(
        root / "control/elr"
    )
    small = build_student(ControlNetModel.from_unet(unet), PRESETS["reduced_layer"], seed=0)
    small.save_pretrained(root / "controlnet/small")
    described = Description("controlnet", "small", condition_kinds=["sketch"])
    write_description(root / "controlnet/small", described)
    bases = {"lora": unet, "lora_elr": elr, "noise": load_unet(tiny_teacher)}
    for name, base in bases.items():
        lora = add_lora(base, r=2, alpha=2.0, targets="attention", seed=0)
        for parameter in lora.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter)
        save_lora(lora, root / "guidance" / name)
        sampling = Sampling() if name == "noise" else Sampling(1, 3.0)
        described = Description("guidance", name, sampling=sampling)
        write_description(root / "guidance" / name, described)
    return root


def folders(teacher: Path, models: Path, model: str, **beside: Path) -> Folders:
    return Folders(teacher, models / model, 0, [0, 1], **beside)


def test_a_unet_is_that_of_its_training_seed(tiny_teacher: Path, models: Path):
    student = load_student("unet/elr", Folders(tiny_teacher, models / "unet/elr", 1, [0, 1]))
    assert isinstance(student.unet, LowRankUNet2DConditionModel)
    assert (student.controlnet, student.kinds, student.is_guided) == (None, (), True)
    assert "seed-1" in Folders(tiny_teacher, models / "unet/elr", 1, [0, 1]).weights.name


def test_the_unguided_teacher_is_evaluated_once(tiny_teacher: Path, models: Path):
    for name, guided in (("guided", True), ("guided_offset", True), ("unguided", False)):
        student = load_student(f"teacher/{name}", folders(tiny_teacher, models, "."))
        assert student.is_guided is guided


def test_an_adapter_stands_on_its_backbone(tiny_teacher: Path, models: Path):
    beside = {"backbone": models / "unet/elr"}
    student = load_student("control/elr", folders(tiny_teacher, models, "control/elr", **beside))
    assert isinstance(student.unet, LowRankUNet2DConditionModel)
    assert student.kinds == ("sketch", "canny")
    with pytest.raises(DistilleryError, match="needs --backbone"):
        load_student("control/elr", folders(tiny_teacher, models, "control/elr"))


def test_a_controlnet_stands_on_the_teacher(tiny_teacher: Path, models: Path):
    student = load_student("controlnet/small", folders(tiny_teacher, models, "controlnet/small"))
    assert isinstance(student.controlnet, StudentControlNet)
    assert student.kinds == ("sketch",)
    assert not any(p.requires_grad for p in student.controlnet.parameters())


def test_a_guidance_student_has_its_lora_merged(tiny_teacher: Path, models: Path):
    beside = {"backbone": tiny_teacher}
    student = load_student(
        "guidance/lora", folders(tiny_teacher, models, "guidance/lora", **beside)
    )
    assert not lora_layers(student.unet)
    plain = load_unet(tiny_teacher)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    weights = (unet.get_submodule(name).weight for unet in (student.unet, plain))
    assert not torch.equal(*weights)
    assert not student.is_guided
    assert student.refuses(3.0) == (
        "it has learned guidance 3; guidance scale 3 would apply guidance twice and is left out"
    )
    assert student.refuses(1.0) is None
    noise = load_student(
        "guidance/noise", folders(tiny_teacher, models, "guidance/noise", **beside)
    )
    assert noise.is_guided
    assert noise.refuses(3.0) is None


def test_the_whole_student_has_all_three_parts(tiny_teacher: Path, models: Path):
    beside = {"backbone": models / "unet/elr", "controlnet": models / "controlnet/small"}
    given = folders(tiny_teacher, models, "guidance/lora_elr", **beside)
    student = load_student("whole/student", given)
    assert isinstance(student.unet, LowRankUNet2DConditionModel)
    assert isinstance(student.controlnet, StudentControlNet)
    assert (student.kinds, student.is_guided) == (("sketch",), False)
    alone = folders(tiny_teacher, models, "guidance/lora_elr", backbone=models / "unet/elr")
    with pytest.raises(DistilleryError, match="needs --controlnet"):
        load_student("whole/student", alone)


def test_sampling_follows_the_student(tiny_teacher: Path, models: Path, tmp_path: Path):
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    sampler = Sampler(teacher, 2, 3.0, 64, 0)
    write_maps(tmp_path, "sketch", ["a"])
    given = folders(tiny_teacher, models, "controlnet/small")
    student = load_student("controlnet/small", given)
    attached = attach(sampler, student, open_maps(student, tmp_path, 64))
    assert attached.control.controlnet is student.controlnet
    assert attached.guidance_scale == 3.0
    with pytest.raises(DistilleryError, match="needs --conditions"):
        open_maps(student, None, 64)
    single = load_student("teacher/unguided", folders(tiny_teacher, models, "."))
    assert open_maps(single, tmp_path, 64) is None
    assert attach(sampler, single, None).guidance_scale == 1.0


def test_what_is_no_student_is_named(tiny_teacher: Path, models: Path):
    with pytest.raises(DistilleryError, match="the families are teacher, whole, unet"):
        load_student("nothing/x", folders(tiny_teacher, models, "."))
    with pytest.raises(DistilleryError, match="LowRankUNet2DConditionModel is no ControlNet"):
        load_controlnet(models / "unet/elr")
