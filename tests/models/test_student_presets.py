"""Sizes and output shapes of the named students, counted on the meta device."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.cost.counts import count_macs, count_parameters
from distillery.models.student_controlnet.model import StudentControlNet
from distillery.models.student_controlnet.presets import PRESETS, meta_controlnet, student_arguments

SCENES = Path(__file__).parents[2] / "data" / "scenes-sd" / "controlnet_canny"


def size(model: nn.Module) -> int:
    return count_parameters({"controlnet": model})["total"]


def inputs(teacher: ControlNetModel) -> dict[str, torch.Tensor]:
    """Latents of 8 x 8, far smaller than SD's: shapes and shares are what is tested."""
    shapes = {
        "sample": (1, teacher.config.in_channels, 8, 8),
        "encoder_hidden_states": (1, 4, teacher.config.cross_attention_dim),
        "controlnet_cond": (1, 3, 64, 64),
    }
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {**tensors, "timestep": torch.zeros(1, device="meta")}


@pytest.fixture(scope="module")
def sd21() -> ControlNetModel:
    return meta_controlnet("sd21")


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("original", 364.2),
        ("reduced_channel", 183.7),
        ("reduced_layer", 92.7),
        ("modulated", 101.57),
        ("loha", 57.33),
    ],
)
def test_reference_sizes_at_sd21(sd21, name, millions):
    assert size(sd21) / 1e6 == pytest.approx(364.2, rel=0.005)
    student = StudentControlNet.empty(sd21, PRESETS[name])
    assert size(student) / 1e6 == pytest.approx(millions, rel=0.0005)


def test_published_widths_and_heads_come_out_of_the_shares(sd21):
    channel = student_arguments(sd21.config, PRESETS["reduced_channel"])
    layer = student_arguments(sd21.config, PRESETS["reduced_layer"])

    assert channel["block_out_channels"] == (224, 448, 896, 896)
    assert channel["attention_head_dim"] == (4, 7, 14, 14)
    assert layer["block_out_channels"] == (192, 384, 768, 768)
    assert layer["attention_head_dim"] == (3, 6, 12, 12)
    assert channel["norm_num_groups"] == layer["norm_num_groups"] == 32


def test_distilled_is_six_times_smaller_with_a_sixth_of_the_macs(sd21):
    """Counted at SD 2.1's own 64 x 64 latents: 59.49M parameters, 24.4 G of 141.9 G MACs."""
    student = StudentControlNet.empty(sd21, PRESETS["distilled"])
    latent = {"sample": torch.empty(1, 4, 64, 64, device="meta")}
    text = {"encoder_hidden_states": torch.empty(1, 77, 1024, device="meta")}
    condition = {"controlnet_cond": torch.empty(1, 3, 512, 512, device="meta")}
    batch = {**inputs(sd21), **latent, **text, **condition}

    assert size(student) / 1e6 == pytest.approx(59.49, abs=0.01)
    assert size(sd21) / size(student) == pytest.approx(6.12, abs=0.01)
    macs = [count_macs(model, **batch) for model in (sd21, student)]
    assert macs[0] / 1e9 == pytest.approx(141.9, abs=0.1)
    assert macs[0] / macs[1] == pytest.approx(5.81, abs=0.01)


@pytest.mark.parametrize("architecture", ["sd15", "sd21"])
def test_emits_what_the_unet_adds(architecture):
    teacher = meta_controlnet(architecture)
    assert teacher.config.block_out_channels == (320, 640, 1280, 1280)
    batch = inputs(teacher)
    expected_down, expected_mid = teacher(**batch, return_dict=False)
    for settings in PRESETS.values():
        down, mid = StudentControlNet.empty(teacher, settings)(**batch, return_dict=False)
        assert len(down) == 12
        assert [r.shape for r in down] == [r.shape for r in expected_down]
        assert mid.shape == expected_mid.shape


@pytest.mark.parametrize("name", PRESETS)
def test_small_teachers_get_widths_that_their_groups_divide(name):
    config = ControlNetModel.load_config(SCENES)
    arguments = student_arguments(config, PRESETS[name])

    share = PRESETS[name]["channels"]
    for width, full in zip(arguments["block_out_channels"], (48, 96), strict=True):
        assert width % arguments["norm_num_groups"] == 0
        assert width == pytest.approx(share * full, rel=0.05)
    assert StudentControlNet.empty(config, PRESETS[name]).config.unet_channels == (48, 96)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"chanels": 0.5}, "no setting 'chanels'"),
        ({"channels": 1.5}, "above 0 and at most 1"),
        ({"channels": [40, 96]}, "40 of level 0 are not divisible by 16 norm groups"),
        ({"channels": [48]}, "1 levels, but the U-Net has 2"),
        ({"attention": [True]}, "2 times true or false"),
        ({"attention": "all"}, "neither teacher, mid, none"),
        ({"modulation": "adain"}, "modulation: 'adain' is unknown"),
        ({"init": "unet"}, "init: 'unet' is unknown"),
        ({"layers_per_block": 0}, "layers_per_block: 0"),
        ({"hadamard_rank": 4, "hadamard_convs": ["conv9"]}, "no convolution ends in conv9"),
    ],
)
def test_refuses_settings_that_do_not_fit(settings, reason):
    config = ControlNetModel.load_config(SCENES)
    with pytest.raises(DistilleryError, match=reason):
        StudentControlNet.empty(config, settings)


def test_refuses_a_teacher_with_other_inputs():
    config = ControlNetModel.load_config(SCENES)
    with pytest.raises(DistilleryError, match="addition_embed_type"):
        student_arguments({**config, "addition_embed_type": "text_time"}, {})
