"""ComfyUI nodes for students of diffusion-distillery (Apache-2.0).

Copy this file to `ComfyUI/custom_nodes/`, a low-rank U-Net's folder to `models/diffusion_models/`,
a student ControlNet's to `models/controlnet/`. ControlNets need `pip install diffusers` there.
"""

import json
import os

import torch

ENDING = ".distillery.safetensors"


def student_controlnet_class():
    """The model's class, which needs diffusers."""
    from distillery.export.remote.student_controlnet import StudentControlNet

    return StudentControlNet


class LowRank(torch.nn.Module):
    """`expand(reduce(x))`, of ComfyUI's own layers, which cast and offload as they see fit."""

    def __init__(self, reduce, expand):
        super().__init__()
        self.reduce, self.expand = reduce, expand

    def forward(self, x):
        return self.expand(self.reduce(x))


def merge(state, ranks):
    """A state dict with the products of `ranks` multiplied out, as a dense U-Net has them."""
    dense = dict(state)
    for name in ranks:
        a, b = dense.pop(f"{name}.expand.weight"), dense.pop(f"{name}.reduce.weight")
        weight = (a.float().flatten(1) @ b.float().flatten(1)).to(a.dtype)
        dense[f"{name}.weight"] = weight.reshape(weight.shape[0], *b.shape[1:])
        if f"{name}.expand.bias" in dense:
            dense[f"{name}.bias"] = dense.pop(f"{name}.expand.bias")
    return dense


def low_rank(layer, factors):
    """ComfyUI layers with the two factors, in place of the dense `layer`."""
    import comfy.ops

    a, b, bias = factors
    made = {"dtype": layer.weight.dtype, "device": layer.weight.device}
    operations = comfy.ops.manual_cast
    if b.ndim == 2:
        reduce = operations.Linear(b.shape[1], b.shape[0], bias=False, **made)
        expand = operations.Linear(a.shape[1], a.shape[0], bias=bias is not None, **made)
    else:
        reduce = operations.Conv2d(
            b.shape[1], b.shape[0], b.shape[2:], stride=layer.stride, padding=layer.padding,
            bias=False, **made,
        )  # fmt: skip
        expand = operations.Conv2d(a.shape[1], a.shape[0], 1, bias=bias is not None, **made)
    reduce.load_state_dict({"weight": b})
    expand.load_state_dict({"weight": a} if bias is None else {"weight": a, "bias": bias})
    return LowRank(reduce, expand)


def load_unet(path, merged):
    """A MODEL of the low-rank U-Net at `path`; dense if `merged`, so that LoRAs fit its layers."""
    import comfy.sd
    import comfy.utils

    config = _config(path, "LowRankUNet2DConditionModel")
    if config.get("removed"):
        raise ValueError(f"{path}: has removed blocks, which ComfyUI's U-Net cannot leave out")
    state = comfy.utils.load_torch_file(path)
    patcher = comfy.sd.load_diffusion_model_state_dict(merge(state, config["ranks"]))
    if patcher is None:
        raise ValueError(f"{path}: ComfyUI knows no U-Net of these widths")
    if not merged:
        unet = patcher.model.diffusion_model
        names = comfy.utils.unet_to_diffusers(patcher.model.model_config.unet_config)
        for name in config["ranks"]:
            place = names[f"{name}.weight"].removesuffix(".weight")
            parts = ("expand.weight", "reduce.weight", "expand.bias")
            factors = [state.get(f"{name}.{part}") for part in parts]
            unet.set_submodule(place, low_rank(unet.get_submodule(place), factors))
        patcher.size = 0  # ComfyUI counts the bytes again
    return patcher


class ControlModel(torch.nn.Module):
    """A student ControlNet behind the call that ComfyUI makes."""

    def __init__(self, controlnet, dtype):
        super().__init__()
        self.controlnet, self.dtype = controlnet, dtype

    def forward(self, x, hint, timesteps, context, **others):
        down, mid = self.controlnet(
            x, timesteps, encoder_hidden_states=context, controlnet_cond=hint, return_dict=False
        )
        return {"output": list(down), "middle": [mid]}


def load_controlnet(path):
    """A CONTROL_NET of the student ControlNet at `path`."""
    import comfy.controlnet
    import comfy.model_management
    import comfy.utils

    config = _config(path, "StudentControlNet")
    dtype = comfy.model_management.unet_dtype()
    known = {key: value for key, value in config.items() if not key.startswith(("_", "auto_map"))}
    model = student_controlnet_class()(**known)
    model.load_state_dict(comfy.utils.load_torch_file(path))
    model = model.to(dtype).requires_grad_(False).eval()
    return comfy.controlnet.ControlNet(
        ControlModel(model, dtype), load_device=comfy.model_management.get_torch_device()
    )


def _config(path, kind):
    with open(os.path.join(os.path.dirname(path), "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config.get("_class_name") != kind:
        raise ValueError(f"{path}: a {config.get('_class_name')}, not a {kind}")
    return config


def _names(kind):
    import folder_paths

    return [name for name in folder_paths.get_filename_list(kind) if name.endswith(ENDING)]


def _path(kind, name):
    import folder_paths

    return folder_paths.get_full_path(kind, name)


class LoadLowRankUNet:
    """A low-rank U-Net, small, or merged to a dense one."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"
    CATEGORY = "loaders/distillery"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (ComfyUI's name)
        required = {
            "unet_name": (_names("diffusion_models"),),
            "merged": ("BOOLEAN", {"default": False}),
        }
        return {"required": required}

    def load(self, unet_name, merged):
        return (load_unet(_path("diffusion_models", unet_name), merged),)


class LoadStudentControlNet:
    """A student ControlNet."""

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load"
    CATEGORY = "loaders/distillery"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (ComfyUI's name)
        return {"required": {"control_net_name": (_names("controlnet"),)}}

    def load(self, control_net_name):
        return (load_controlnet(_path("controlnet", control_net_name)),)


NODE_CLASS_MAPPINGS = {
    "DistilleryLoadLowRankUNet": LoadLowRankUNet,
    "DistilleryLoadStudentControlNet": LoadStudentControlNet,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DistilleryLoadLowRankUNet": "Load low-rank U-Net",
    "DistilleryLoadStudentControlNet": "Load student ControlNet",
}
