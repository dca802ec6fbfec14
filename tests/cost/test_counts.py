import pytest
import torch
from peft import LoraConfig
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.cost.counts import count_macs, count_parameters, pipeline_counts
from distillery.models.architectures import build_meta
from distillery.models.lowrank.ranks import plan_ranks
from tiny_models import tiny_unet, unet_inputs

VAE, SD15_TEXT, SD21_TEXT = 83_653_863, 123_060_480, 340_387_840


def test_published_sizes_of_stable_diffusion():
    assert pipeline_counts("sd15") == {
        "unet": 859_520_964,
        "text_encoder": SD15_TEXT,
        "vae": VAE,
        "total": 1_066_235_307,
    }
    assert pipeline_counts("sd21") == {
        "unet": 865_910_724,
        "text_encoder": SD21_TEXT,
        "vae": VAE,
        "total": 1_289_952_427,
    }


def test_published_size_of_the_low_rank_student():
    unet = build_meta("sd21")["unet"]
    counts = pipeline_counts("sd21", plan_ranks(unet))
    assert counts["unet"] == pytest.approx(364.232e6, abs=500)
    assert counts["total"] == pytest.approx(788.3e6, abs=5e4)
    bare = pipeline_counts("sd21", plan_ranks(unet, keep_dense=()))
    assert bare["unet"] == pytest.approx(364.216e6, abs=500)


def test_unknown_architecture():
    with pytest.raises(DistilleryError, match="'sd14' is unknown; choose one of sd15, sd21"):
        pipeline_counts("sd14")


def test_columns_of_a_frozen_pipeline_with_a_control_adapter(unet):
    controlnet, encoder = nn.Linear(10, 10), nn.Linear(3, 4, bias=False)
    unet.requires_grad_(False)
    optimizer = torch.optim.AdamW([controlnet.weight])
    parts = {"unet": unet, "controlnet": controlnet, "text_encoder": encoder}
    num_unet = sum(parameter.numel() for parameter in unet.parameters())
    assert count_parameters(parts, optimizer) == {
        "total": num_unet + 110 + 12,
        "unet": num_unet,
        "adapter": 110,
        "requires_grad": 110 + 12,
        "in_optimiser": 100,
        "bytes_on_disk": 4 * (num_unet + 110 + 12),
    }


def test_peft_layers_inside_the_unet_count_as_adapter(unet):
    num_unet = sum(parameter.numel() for parameter in unet.parameters())
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    num_lora = sum(p.numel() for name, p in unet.named_parameters() if ".lora_" in name)
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    counts = count_parameters(unet, iter(trained))
    assert num_lora > 0
    assert counts["unet"] == num_unet
    assert counts["adapter"] == counts["requires_grad"] == counts["in_optimiser"] == num_lora
    assert counts["total"] == num_unet + num_lora


def test_shared_tensors_count_once_and_buffers_only_on_disk():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    parts = {"unet": nn.Sequential(first, nn.BatchNorm1d(4)), "vae": second}
    counts = count_parameters(parts)
    assert counts["total"] == counts["unet"] == 16 + 8
    assert counts["bytes_on_disk"] == 4 * (24 + 8) + 8  # running moments, int64 step counter


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bytes_on_disk_are_those_of_the_saved_file(student, tmp_path, dtype):
    predicted = count_parameters(student, dtype=dtype)["bytes_on_disk"]
    student.to(dtype).save_pretrained(tmp_path)
    size = next(tmp_path.glob("*.safetensors")).stat().st_size
    num_tensors = len(student.state_dict())
    assert predicted < size < predicted + 200 * num_tensors


def test_macs_of_single_layers():
    assert count_macs(nn.Linear(5, 7), torch.empty(3, 5)) == 3 * 5 * 7
    conv = nn.Conv2d(4, 6, 3, padding=1, stride=2)
    assert count_macs(conv, torch.empty(2, 4, 8, 8)) == 2 * 16 * 6 * 36


def test_macs_on_meta_equal_real_ones_and_fall_with_rank(unet, student):
    real = count_macs(unet, **unet_inputs())
    with torch.device("meta"):
        skeleton = tiny_unet()
    on_meta = {key: value.to("meta") for key, value in unet_inputs().items()}
    assert count_macs(skeleton, **on_meta) == real
    assert 0.3 * real < count_macs(student, **unet_inputs()) < 0.6 * real
