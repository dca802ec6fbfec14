"""The ComfyUI node, imported with stand-ins for ComfyUI's modules, answers as the students do."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from distillery.core.errors import DistilleryError
from distillery.export import comfyui_node
from distillery.models.load import load_controlnet, load_unet
from tiny_models import UNET_CONFIG, unet_inputs

WEIGHTS = "diffusion_pytorch_model.distillery.safetensors"


class Patcher:
    """A MODEL, as far as the node uses it: a U-Net under other names than diffusers'."""

    def __init__(self, state: dict) -> None:
        unet = UNet2DConditionModel(**{**UNET_CONFIG, "layers_per_block": 1}).eval()
        unet.load_state_dict(state)
        wrapped = torch.nn.ModuleDict({"unet": unet})
        config = types.SimpleNamespace(unet_config={"keys": list(state)})
        self.model = types.SimpleNamespace(diffusion_model=wrapped, model_config=config)
        self.size = 1


class ControlNet:
    """A CONTROL_NET."""

    def __init__(self, control_model, load_device=None) -> None:
        self.control_model, self.load_device = control_model, load_device


class Layers:
    """ComfyUI's own layers."""

    Linear, Conv2d = torch.nn.Linear, torch.nn.Conv2d


@pytest.fixture
def node(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The exported file as ComfyUI imports it, the project's models in its folders."""
    modules = {
        "comfy": {},
        "comfy.sd": {"load_diffusion_model_state_dict": Patcher},
        "comfy.utils": {
            "load_torch_file": load_file,
            "unet_to_diffusers": lambda config: {key: f"unet.{key}" for key in config["keys"]},
        },
        "comfy.ops": {"manual_cast": Layers},
        "comfy.controlnet": {"ControlNet": ControlNet},
        "comfy.model_management": {
            "unet_dtype": lambda: torch.float32,
            "get_torch_device": lambda: torch.device("cpu"),
        },
        "folder_paths": {
            "get_filename_list": lambda kind: [f"elr/{WEIGHTS}", "other.safetensors"],
            "get_full_path": lambda kind, name: str(
                project / "models" / {"diffusion_models": "unet"}.get(kind, kind) / name
            ),
        },
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        monkeypatch.setitem(sys.modules, name, module)
    path = comfyui_node.write(tmp_path / "distillery_node.py")
    assert "distillery.export" not in path.read_text()
    spec = importlib.util.spec_from_file_location("distillery_node", path)
    imported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported)
    return imported


@pytest.mark.parametrize("merged", [False, True])
def test_a_low_rank_unet_answers_as_in_diffusers(node, project: Path, merged: bool) -> None:
    loader = node.NODE_CLASS_MAPPINGS["DistilleryLoadLowRankUNet"]
    assert loader.INPUT_TYPES()["required"]["unet_name"] == ([f"elr/{WEIGHTS}"],)
    (patcher,) = getattr(loader(), loader.FUNCTION)(f"elr/{WEIGHTS}", merged)
    unet, student = patcher.model.diffusion_model["unet"], load_unet(project / "models/unet/elr")
    with torch.no_grad():
        wanted, given = student(**unet_inputs()).sample, unet(**unet_inputs()).sample
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (unet, student)]
    assert (sizes[0] == sizes[1]) is not merged


@pytest.mark.parametrize("name", ["distilled", "loha"])
def test_a_student_controlnet_answers_as_in_diffusers(node, project: Path, name: str) -> None:
    loader = node.NODE_CLASS_MAPPINGS["DistilleryLoadStudentControlNet"]
    (controlnet,) = getattr(loader(), loader.FUNCTION)(f"{name}/{WEIGHTS}")
    student = load_controlnet(project / "models/controlnet" / name, "cpu", torch.float32)
    inputs = unet_inputs()
    sample, time, text = inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]
    maps = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        given = controlnet.control_model(x=sample, hint=maps, timesteps=time, context=text, y=None)
        down, mid = student(sample, time, text, maps, return_dict=False)
    assert given.keys() == {"output", "middle"}
    for mine, theirs in zip([*given["output"], *given["middle"]], [*down, mid], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    assert controlnet.control_model.dtype == torch.float32


def test_what_it_cannot_load_is_said(node, project: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="removed blocks"):
        node.load_unet(str(project / "models/unet/lean" / WEIGHTS), False)
    with pytest.raises(ValueError, match="a StudentControlNet, not a LowRank"):
        node.load_unet(str(project / "models/controlnet/loha" / WEIGHTS), False)
    with pytest.raises(DistilleryError, match=r"must end in \.py"):
        comfyui_node.write(tmp_path / "node")
