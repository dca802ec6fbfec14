"""Models load by the class in their config.json, with every tensor or not at all."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from distillery.core.errors import DistilleryError
from distillery.models.load import find_unet, load_controlnet, load_unet
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_controlnet, tiny_unet

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_unets_load_by_their_class_frozen(tmp_path: Path) -> None:
    dense = tiny_unet()
    dense.save_pretrained(tmp_path / "teacher/unet")
    low = factorise_unet(dense, plan_ranks(dense))[0]
    low.save_pretrained(tmp_path / "low")
    assert find_unet(tmp_path / "teacher") == tmp_path / "teacher/unet"
    loaded = [load_unet(tmp_path / "teacher", dtype=torch.bfloat16), load_unet(tmp_path / "low")]
    assert [type(unet) for unet in loaded] == [UNet2DConditionModel, LowRankUNet2DConditionModel]
    assert [unet.dtype for unet in loaded] == [torch.bfloat16, torch.float32]
    for unet in loaded:
        assert not unet.training
        assert not any(p.requires_grad for p in unet.parameters())


def test_a_controlnet_stays_trainable_on_request(tmp_path: Path) -> None:
    tiny_controlnet(tiny_unet()).save_pretrained(tmp_path)
    for frozen in (True, False):
        controlnet = load_controlnet(tmp_path, frozen=frozen)
        assert type(controlnet) is ControlNetModel
        assert not controlnet.training
        assert any(p.requires_grad for p in controlnet.parameters()) != frozen


@pytest.mark.parametrize("kind", ["unet", "controlnet"])
def test_random_weights_are_never_used(tmp_path: Path, kind: str) -> None:
    model, load = tiny_unet(), load_unet
    if kind == "controlnet":
        model, load = tiny_controlnet(model), load_controlnet
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    lost = {name: value for name, value in weights.items() if not name.startswith("mid_block")}
    for wrong, said in (
        (lost, r"tensors are missing: mid_block\.attentions\.0.*, \.\.\.; weights"),
        ({**weights, "old.weight": torch.zeros(2)}, "1 tensors are unexpected: old.weight;"),
    ):
        save_file(wrong, tmp_path / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(DistilleryError, match=said) as raised:
            load(tmp_path)
        assert "\n" not in str(raised.value)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match="no U-Net here"):
        load_unet(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "Other"}')
    with pytest.raises(DistilleryError, match="Other is no U-Net"):
        load_unet(tmp_path)
    with pytest.raises(DistilleryError, match="Other is no ControlNet"):
        load_controlnet(tmp_path)
    tiny_unet().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"not a file of tensors")
    with pytest.raises(DistilleryError, match="cannot load"):
        load_unet(tmp_path)
