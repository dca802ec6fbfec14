"""LoRAs in kohya's form: key names, metadata, and the same image by `load_lora_weights`."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from distillery.core.errors import DistilleryError
from distillery.export import kohya
from distillery.models.load import load_unet
from distillery.models.lora.files import load_guidance_unet, lora_state
from distillery.models.lora.layers import add_lora, lora_layers
from distillery.models.lowrank import LowRankUNet2DConditionModel
from export.conftest import unlike_start
from export.test_single_file import draw
from tiny_models import tiny_unet

ABOUT = {"name": "mine", "base_model": "someone/tiny", "prediction_type": "v_prediction"}


def test_key_names_and_metadata(tmp_path: Path) -> None:
    """Alpha is not the rank, so that one taken for the other is seen."""
    unet = unlike_start(add_lora(tiny_unet(), r=4, alpha=6.0, targets="all", seed=0))
    path = kohya.write(unet, tmp_path / "kohya.safetensors", **ABOUT)
    state, own = load_file(path), lora_state(unet)
    query = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    flat = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert torch.equal(state[f"{flat}.lora_down.weight"], own[f"{query}.lora_A.weight"])
    assert torch.equal(state[f"{flat}.lora_up.weight"], own[f"{query}.lora_B.weight"])
    assert state["lora_unet_conv_in.alpha"].shape == ()
    assert float(state["lora_unet_conv_in.alpha"]) == 6.0
    assert len(state) == 3 * len(lora_layers(unet))
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    assert said == {
        "ss_base_model_version": "sd_v1",
        "ss_network_alpha": "6.0",
        "ss_network_dim": "4",
        "ss_network_module": "networks.lora",
        "ss_output_name": "mine",
        "ss_sd_model_name": "someone/tiny",
        "ss_training_comment": "guidance distilled: sample with guidance scale 1",
        "ss_v2": "False",
        "ss_v_parameterization": "True",
    }
    assert [found.name for found in tmp_path.iterdir()] == ["kohya.safetensors"]


def test_diffusers_draws_the_same_with_the_file(project: Path, tmp_path: Path) -> None:
    teacher, student = project / "models/teacher", project / "models/guidance/lora_distill"
    unet = load_guidance_unet(student, load_unet(teacher / "unet"), fuse=False)
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    for path in paths:
        kohya.write(unet, path, **ABOUT)
    assert sorted(load_file(paths[0])) == sorted(load_file(paths[1]))
    ours = StableDiffusionPipeline.from_pretrained(teacher, unet=unet)
    theirs = StableDiffusionPipeline.from_pretrained(teacher)
    without = draw(theirs)
    theirs.load_lora_weights(str(tmp_path), weight_name="one.safetensors")
    assert (draw(ours) - draw(theirs)).abs().max() <= 1e-4
    assert (without - draw(theirs)).abs().max() > 1e-3


def test_what_has_no_such_form_is_refused(tmp_path: Path, project: Path) -> None:
    student = LowRankUNet2DConditionModel.from_pretrained(project / "models/unet/elr")
    add_lora(student, r=2, alpha=2.0, targets="attention", seed=0)
    with pytest.raises(DistilleryError, match=r"low-rank U-Net.*export --to single-file"):
        kohya.write(student, tmp_path / "a.safetensors", **ABOUT)
    unet = add_lora(tiny_unet(), r=2, alpha=2.0, targets="attention", seed=0)
    with pytest.raises(DistilleryError, match=r"must end in \.safetensors"):
        kohya.write(unet, tmp_path / "a.pt", **ABOUT)
    assert not list(tmp_path.iterdir())


def test_the_gate_notices_another_alpha(tmp_path: Path, monkeypatch) -> None:
    state = kohya.kohya_state

    def wrong(unet):
        return {k: 2 * t if k.endswith(".alpha") else t for k, t in state(unet).items()}

    monkeypatch.setattr(kohya, "kohya_state", wrong)
    unet = unlike_start(add_lora(tiny_unet(), r=2, alpha=2.0, targets="attention", seed=0))
    with pytest.raises(DistilleryError, match="outputs differ by"):
        kohya.write(unet, tmp_path / "a.safetensors", **ABOUT)
    assert not list(tmp_path.iterdir())
