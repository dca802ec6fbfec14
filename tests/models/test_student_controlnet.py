from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)

from distillery.core.errors import DistilleryError
from distillery.models.hadamard.conv import HadamardConv2d
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.student_controlnet.init import thinned
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet, build_student
from distillery.models.student_controlnet.outputs import default_map, encoder_points
from tiny_models import tiny_pipeline

ROOT = Path(__file__).parents[2]
SCENES = ROOT / "data" / "scenes-sd"
TINY = {"init": "random"}


@pytest.fixture(scope="module")
def scenes_controlnet() -> ControlNetModel:
    return ControlNetModel.from_pretrained(SCENES / "controlnet_canny")


@pytest.fixture(scope="module")
def controlnet(teacher: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet of the tiny U-Net with residuals that are not zero."""
    torch.manual_seed(2)
    made = ControlNetModel.from_unet(teacher, conditioning_embedding_out_channels=(4, 8, 8, 8))
    for layer in [made.controlnet_cond_embedding.conv_out, *projections(made)]:
        torch.nn.init.normal_(layer.weight, std=0.1)
    return made.eval()


def projections(controlnet: ControlNetModel) -> list[torch.nn.Conv2d]:
    return [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]


def trained(student: StudentControlNet) -> StudentControlNet:
    """As after training: nothing is zero any more."""
    generator = torch.Generator().manual_seed(5)
    for parameter in student.parameters():
        if not parameter.detach().any():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return student.eval()


def inputs(channels: int = 16, text: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(2, channels, 8, 8, generator=generator),
        "timestep": torch.tensor([7, 801]),
        "encoder_hidden_states": torch.randn(2, 5, text, generator=generator),
        "controlnet_cond": torch.rand(2, 3, 64, 64, generator=generator),
    }


def all_residuals(controlnet: ControlNetModel, **changes) -> list[torch.Tensor]:
    with torch.no_grad():
        down, mid = controlnet(**{**inputs(), "return_dict": False, **changes})
    return [*down, mid]


@pytest.mark.parametrize("name", PRESETS)
def test_changes_nothing_at_first(scenes_controlnet, name):
    unet = UNet2DConditionModel.from_pretrained(SCENES / "unet").eval()
    student = build_student(scenes_controlnet, PRESETS[name], seed=0).eval()
    batch = inputs(text=64)
    condition = batch.pop("controlnet_cond")
    with torch.no_grad():
        expected, _ = scenes_controlnet(**batch, controlnet_cond=condition, return_dict=False)
        down, mid = student(**batch, controlnet_cond=condition, return_dict=False)
        controlled = unet(
            **batch, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample

        assert [r.shape for r in down] == [r.shape for r in expected]
        assert not any(bool(r.any()) for r in [*down, mid])
        assert torch.equal(controlled, unet(**batch).sample)


def test_same_architecture_is_the_teacher(controlnet):
    """With the teacher's projections too, a student of its widths gives its residuals exactly."""
    student = build_student(controlnet, PRESETS["original"], seed=0).eval()
    for own, theirs in zip(projections(student), projections(controlnet), strict=True):
        own.load_state_dict(theirs.state_dict())

    for options in (
        {},
        {"conditioning_scale": 0.3},
        {"guess_mode": True, "conditioning_scale": 0.5},
        {"timestep": 40},
    ):
        expected = all_residuals(controlnet, **options)
        pairs = zip(all_residuals(student, **options), expected, strict=True)
        assert all(torch.allclose(own, their, atol=1e-6) for own, their in pairs), options
    assert student(**inputs()).mid_block_res_sample.shape == (2, 64, 4, 4)


def test_one_layer_feeds_two_outputs_by_their_own_projections(controlnet):
    student = trained(build_student(controlnet, PRESETS["modulated"] | TINY, seed=0))

    assert student.config.output_map["level0.layer1"] == "level0.layer0"
    first, second = all_residuals(student)[1:3]
    assert first.shape == second.shape
    assert not torch.allclose(first, second)


def test_output_map_is_followed(controlnet):
    """`mid` from the last downsampled activation: then the middle block has no effect."""
    points = encoder_points((32, 64), 2)
    chosen = {name: name for name in points} | {"mid": "level0.downsampler"}
    student = trained(build_student(controlnet, {"output_map": chosen}, seed=0))
    before = all_residuals(student)
    for parameter in student.mid_block.parameters():
        parameter.data.zero_()

    pairs = zip(before, all_residuals(student), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"level1.layer1": None}, "leaves level1.layer1 unfed"),
        ({"level1.layer1": "level0.layer0"}, "level1.layer1 is at 1/2 of the latent, its source"),
        ({"level1.layer1": "level1.layer1"}, "which this student does not have"),
        ({"level5.layer0": "mid"}, "no output 'level5.layer0'"),
    ],
)
def test_refuses_a_map_that_does_not_fit(controlnet, change, reason):
    chosen = default_map((32, 64), 2, 1) | change
    chosen = {name: source for name, source in chosen.items() if source}
    with pytest.raises(DistilleryError, match=reason):
        StudentControlNet.empty(controlnet, {"layers_per_block": 1, "output_map": chosen})


def test_refuses_heads_that_do_not_divide():
    with pytest.raises(DistilleryError, match="64 of level 1 are not divisible by 5 attention"):
        StudentControlNet(
            block_out_channels=(40, 64),
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            norm_num_groups=8,
            attention_head_dim=5,
        )


def test_starts_from_an_even_selection_of_the_teachers_channels(controlnet):
    student = build_student(controlnet, {"channels": [16, 32], "norm_num_groups": 8}, seed=0)
    theirs = controlnet.state_dict()
    name = "down_blocks.0.resnets.0.conv1.weight"
    expected = theirs[name].numpy()[::2, ::2] * np.sqrt(2)

    assert np.allclose(student.state_dict()[name], expected, rtol=1e-6)
    hint = "controlnet_cond_embedding.blocks.0.weight"
    assert torch.equal(student.state_dict()[hint], theirs[hint])
    assert thinned(torch.arange(10.0), torch.Size([4])).tolist() == [0, 2, 5, 7]


def test_random_start_depends_on_the_seed_alone(controlnet):
    settings = PRESETS["loha"] | TINY
    torch.manual_seed(99)
    first = build_student(controlnet, settings, seed=3).state_dict()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = build_student(controlnet, settings, seed=3).state_dict()
    other = build_student(controlnet, settings, seed=4).state_dict()

    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])


def test_hadamard_layers_start_near_the_teachers_and_export_dense(controlnet):
    student = trained(build_student(controlnet, PRESETS["loha"], seed=0))
    name = "down_blocks.1.resnets.0.conv2"
    layer = student.get_submodule(name)
    random = HadamardConv2d.like(layer.to_dense(), layer.rank)
    target = thinned(controlnet.state_dict()[f"{name}.weight"], layer.weight.shape)
    assert layer.error(target) < 0.9 < random.error(target)

    dense = student.to_dense()

    assert not any(isinstance(module, HadamardConv2d) for module in dense.modules())
    pairs = zip(all_residuals(dense), all_residuals(student), strict=True)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_gradient_checkpointing_gives_the_same_gradients(controlnet):
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        student = trained(build_student(controlnet, PRESETS["loha"] | TINY, seed=0)).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        down, mid = student(**inputs(), return_dict=False)
        sum(r.square().mean() for r in [*down, mid]).backward()
        return [parameter.grad for parameter in student.parameters()]

    pairs = zip(gradients(True), gradients(False), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in pairs)


def pipeline_around(controlnet, unet) -> StableDiffusionControlNetPipeline:
    parts = {**tiny_pipeline().components, "unet": unet, "controlnet": controlnet}
    pipeline = StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, image) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "output_type": "np", "generator": generator}
    return pipeline("abc", image=image, **options).images


def test_pipeline_saves_and_loads_beside_a_low_rank_unet(controlnet, teacher, tmp_path):
    unet = factorise_unet(teacher, plan_ranks(teacher))[0].eval()
    student = trained(build_student(controlnet, PRESETS["loha"], seed=0))
    image = inputs()["controlnet_cond"][:1]
    pipeline = pipeline_around(student, unet)
    drawn = draw(pipeline, image)
    pipeline.save_pretrained(tmp_path)

    loaded = StableDiffusionControlNetPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)

    assert type(loaded.controlnet) is StudentControlNet
    assert type(loaded.unet) is LowRankUNet2DConditionModel
    assert loaded.controlnet.config.hadamard_ranks == student.config.hadamard_ranks
    assert np.array_equal(draw(loaded, image), drawn)


def test_several_students_in_one_pipeline(controlnet, teacher):
    student = trained(build_student(controlnet, PRESETS["distilled"] | TINY, seed=0))
    image = inputs()["controlnet_cond"][:1]
    both = MultiControlNetModel([student, controlnet])
    batch = {key: value for key, value in inputs().items() if key != "controlnet_cond"}
    conditions = [inputs()["controlnet_cond"]] * 2
    with torch.no_grad():
        down, mid = both(
            **batch, controlnet_cond=conditions, conditioning_scale=[1.0, 0.5], return_dict=False
        )
    alone = [all_residuals(student), all_residuals(controlnet, conditioning_scale=0.5)]
    for total, one, other in zip([*down, mid], *alone, strict=True):
        assert torch.allclose(total, one + other, atol=1e-6)
    assert draw(pipeline_around(both, teacher), [image, image]).shape == (1, 64, 64, 3)


def test_refuses_a_folder_whose_weights_do_not_fit(controlnet, tmp_path):
    build_student(controlnet, PRESETS["reduced_layer"] | TINY, seed=0).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"modulation": "none"', '"modulation": "film"'))

    with pytest.raises(DistilleryError, match="tensors are missing"):
        StudentControlNet.from_pretrained(tmp_path)
