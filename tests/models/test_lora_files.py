"""LoRA files: diffusers' and PEFT's key names, round trips, a student's folder."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distillery.core.artifacts import hash_file
from distillery.core.errors import DistilleryError
from distillery.models.export import save_model
from distillery.models.lora.files import (
    LORA_FILE,
    export_fused,
    load_guidance_unet,
    load_lora,
    lora_state,
    save_lora,
    save_peft,
)
from distillery.models.lora.layers import lora_layers
from models.test_lora import output, with_lora
from tiny_models import tiny_pipeline, tiny_unet

SOURCES = Path(__file__).parents[2] / "src"
# Without this package on the path: only what its users have.
IN_DIFFUSERS = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("teacher", safety_checker=None)
pipe.load_lora_weights("lora")
calls = []
pipe.unet.register_forward_hook(lambda module, args, out: calls.append(args[0].shape[0]))
from safetensors.torch import load_file, save_file
inputs = load_file("inputs.safetensors")
with torch.no_grad():
    out = pipe.unet(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]).sample
save_file({"out": out}, "out.safetensors")
calls.clear()
image = pipe("abc", guidance_scale=1, num_inference_steps=3, height=64, width=64).images[0]
assert calls == [1, 1, 1], calls
assert "distillery" not in sys.modules
"""


def test_key_names(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    with_lora(unet)
    save_lora(unet, tmp_path)
    save_peft(unet, tmp_path / "peft")
    query, conv = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in"
    diffusers = load_file(tmp_path / LORA_FILE)
    for layer in (query, conv):
        assert {f"unet.{layer}.lora_A.weight", f"unet.{layer}.lora_B.weight"} <= set(diffusers)
    assert len(diffusers) == 2 * len(lora_layers(unet))
    peft = load_file(tmp_path / "peft/adapter_model.safetensors")
    assert {f"base_model.model.{name.removeprefix('unet.')}" for name in diffusers} == set(peft)


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("low_rank", [False, True])
def test_diffusers_round_trip(low_rank: bool, targets: str, unet, student, tmp_path: Path) -> None:
    """Alpha is not the rank, so that one taken for the other is seen."""
    chosen = with_lora(student if low_rank else unet, r=4, alpha=10.0, targets=targets)
    save_lora(chosen, tmp_path)
    base = type(chosen).from_config(chosen.config)
    weights = {n: p for n, p in chosen.named_parameters() if ".lora_" not in n}
    base.load_state_dict({n.replace(".base_layer", ""): p for n, p in weights.items()})
    loaded = load_lora(base.eval(), tmp_path)
    mine, theirs = lora_state(chosen), lora_state(loaded)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(output(loaded), output(chosen))


def test_peft_round_trip(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    save_peft(with_lora(unet), tmp_path)
    loaded = PeftModel.from_pretrained(tiny_unet(), str(tmp_path))
    config = loaded.peft_config["default"]
    assert (config.r, config.lora_alpha) == (4, 6.0)
    torch.testing.assert_close(output(loaded.eval()), output(unet), rtol=0, atol=1e-6)


def test_equal_loras_give_equal_bytes(tmp_path: Path) -> None:
    """The order of several header entries varies, so there is one."""
    hashes = {hash_file(save_lora(with_lora(tiny_unet()), tmp_path / n)) for n in ("a", "b", "c")}
    assert len(hashes) == 1
    with safe_open(tmp_path / "a" / LORA_FILE, framework="pt") as file:
        (header,) = file.metadata().values()
    described = json.loads(header)
    assert (described["unet.r"], described["unet.lora_alpha"]) == (4, 6.0)


def test_a_fresh_process_with_diffusers_alone(unet, tmp_path: Path, python: Path) -> None:
    """`load_lora_weights(folder)`, then guidance_scale=1: one evaluation in each of 3 steps."""
    tiny_pipeline(layers_per_block=2).save_pretrained(tmp_path / "teacher")
    save_lora(with_lora(unet), tmp_path / "lora")
    inputs = {
        "sample": torch.randn(2, 16, 8, 8),
        "timestep": torch.tensor([7, 801]),
        "encoder_hidden_states": torch.randn(2, 5, 32),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    command = [python / "python", "-c", IN_DIFFUSERS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        wanted = unet(**inputs).sample
    got = load_file(tmp_path / "out.safetensors")["out"]
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("low_rank", [False, True])
def test_a_student_folder_becomes_a_unet(low_rank: bool, unet, student, tmp_path: Path) -> None:
    chosen = student if low_rank else unet
    save_model(chosen, tmp_path / "base")
    save_lora(with_lora(chosen), tmp_path / "lora")
    for fuse in (True, False):
        base = type(chosen).from_pretrained(tmp_path / "base")
        loaded = load_guidance_unet(tmp_path / "lora", base, fuse=fuse)
        assert bool(lora_layers(loaded)) is not fuse
        assert not loaded.training
        assert not any(p.requires_grad for p in loaded.parameters())
        torch.testing.assert_close(output(loaded), output(chosen), rtol=0, atol=1e-5)
    whole = load_guidance_unet(tmp_path / "base", type(chosen).from_pretrained(tmp_path / "base"))
    assert not torch.equal(output(whole), output(chosen))


def test_the_fused_export_is_a_plain_unet(student, tmp_path: Path) -> None:
    save_model(student, tmp_path / "base")
    save_lora(with_lora(student), tmp_path / "lora")
    base = type(student).from_pretrained(tmp_path / "base")
    export_fused(tmp_path / "lora", base, tmp_path / "fused")
    plain = UNet2DConditionModel.from_pretrained(tmp_path / "fused")
    torch.testing.assert_close(output(plain), output(student), rtol=0, atol=1e-5)


def test_refusals(unet: UNet2DConditionModel, student, tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match="no LoRA to save"):
        save_lora(unet, tmp_path)
    with pytest.raises(DistilleryError, match="not found; run distill_guidance"):
        load_lora(unet, tmp_path)
    with pytest.raises(DistilleryError, match=r"neither .* nor config.json"):
        load_guidance_unet(tmp_path, unet)
    save_lora(with_lora(unet), tmp_path)
    with pytest.raises(DistilleryError, match="made for another U-Net"):
        load_lora(student, tmp_path)
    wider = tiny_unet(block_out_channels=(64, 64))
    with pytest.raises(DistilleryError, match=r"made for another U-Net, .* does not fit"):
        load_lora(wider, tmp_path)
