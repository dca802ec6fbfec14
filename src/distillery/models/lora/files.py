"""LoRA files, diffusers' and PEFT's, and a trained guidance student's folder.

In: a U-Net with a LoRA, or a folder. Out: files that the tools load, or a U-Net. Only safetensors;
their headers hold nothing that varies between equal LoRAs. Not here: the LoRA itself (`layers`),
kohya's form (`export`).
"""

import json
from pathlib import Path

from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.core.publishing import room_for
from distillery.core.weights import require_recorded
from distillery.models.export import save_model
from distillery.models.load import load_unet
from distillery.models.lora.guidance_embedding import tell_scale
from distillery.models.lora.layers import ADAPTER, fuse_lora, lora_layers
from distillery.models.lora.negative import load_negative
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

LORA_FILE = LORA_WEIGHT_NAME_SAFE
_PREFIX = "unet."


def lora_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """`<layer>.lora_A.weight` and `<layer>.lora_B.weight` of every adapted layer, on the CPU."""
    if not lora_layers(unet):
        raise DistilleryError("no LoRA to save in this U-Net; add one with add_lora")
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}


def save_lora(unet: UNet2DConditionModel, folder: str | Path) -> Path:
    """Write `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(folder)` reads.

    Keys are `unet.<layer>.lora_A.weight`; rank and alpha are in the header, where diffusers looks
    for them: without, it takes alpha for the rank, and scales wrongly.
    """
    path = Path(folder) / LORA_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"{_PREFIX}{name}": tensor for name, tensor in lora_state(unet).items()}
    described = {f"{_PREFIX}{key}": value for key, value in _config(unet).items()}
    header = {LORA_ADAPTER_METADATA_KEY: json.dumps(described, sort_keys=True)}
    with room_for(path, sum(tensor.nbytes for tensor in state.values())):
        save_file(state, path, metadata=header)
    return path


def load_lora(unet: UNet2DConditionModel, folder: str | Path) -> UNet2DConditionModel:
    """Add the LoRA in `folder` to `unet`, in place and active; returns `unet`.

    Raises DistilleryError if the file is missing or fits another U-Net.
    """
    path = Path(folder) / LORA_FILE
    if not path.is_file():
        raise DistilleryError(f"{path}: not found; run distill_guidance, or save_lora")
    require_recorded(path)
    _require_fit(unet, path)
    unet.load_lora_adapter(
        str(folder),
        weight_name=LORA_FILE,
        prefix=_PREFIX.rstrip("."),
        adapter_name=ADAPTER,
        local_files_only=True,
        use_safetensors=True,
    )
    return unet


def save_peft(unet: UNet2DConditionModel, folder: str | Path) -> Path:
    """Write the LoRA as `PeftModel.from_pretrained(unet, folder)` reads it; returns `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", **_config(unet), "inference_mode": True}
    write_json(folder / "adapter_config.json", config)
    state = {f"base_model.model.{name}": tensor for name, tensor in lora_state(unet).items()}
    save_file(state, folder / "adapter_model.safetensors")
    return folder


def load_guidance_unet(
    folder: str | Path,
    backbone: UNet2DConditionModel,
    *,
    fuse: bool = True,
    scale: float | None = None,
    negative: bool = False,
) -> UNet2DConditionModel:
    """The student that `distill_guidance` wrote to `folder`, frozen, in eval mode.

    A LoRA goes into `backbone`, in place, merged into its weights or, without `fuse`, as an active
    adapter; a full variant is loaded from `folder` to the backbone's device and dtype. A student
    that is told its guidance scale gets `scale` in every call; others have learned theirs. With
    `negative` it can be told a negative prompt (`models.lora.negative`).
    Raises DistilleryError where there is no student, and for one to be told without `scale`.
    """
    folder = Path(folder)
    if (folder / LORA_FILE).is_file():
        unet = load_lora(backbone, folder)
        unet = fuse_lora(unet) if fuse else unet
    elif (folder / "config.json").is_file():
        unet = load_unet(folder, dtype=backbone.dtype)
    else:
        raise DistilleryError(f"{folder}: neither {LORA_FILE} nor config.json; run its stage again")
    if unet.config.time_cond_proj_dim is not None:
        if scale is None:
            raise DistilleryError(f"{folder}: this student is told its guidance scale; give one")
        tell_scale(unet, scale)
    if negative:
        load_negative(unet, folder)
    return unet.to(backbone.device).requires_grad_(False).eval()


def export_fused(
    folder: str | Path, backbone: UNet2DConditionModel, out: str | Path
) -> UNet2DConditionModel:
    """Save the student in `folder` as one dense U-Net that diffusers loads alone; returns it.

    `backbone` is changed in place, as by `load_guidance_unet`.
    """
    unet = load_guidance_unet(folder, backbone)
    dense = unet.to_dense() if isinstance(unet, LowRankUNet2DConditionModel) else unet
    save_model(dense, out)
    return dense


def _config(unet: UNet2DConditionModel) -> dict:
    """What tells PEFT how to make the adapter, in a fixed order."""
    config: LoraConfig = unet.peft_config[ADAPTER]
    return {
        "lora_alpha": config.lora_alpha,
        "r": config.r,
        "target_modules": list(lora_layers(unet)),
    }


def _require_fit(unet: UNet2DConditionModel, path: Path) -> None:
    """Every tensor of the file must have a layer of its size."""
    layers = dict(unet.named_modules())
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
            layer, kind, _ = key.removeprefix(_PREFIX).rsplit(".", 2)
            weight = getattr(layers.get(layer), "weight", None)
            axis = 1 if kind == "lora_A" else 0
            size = file.get_slice(key).get_shape()[axis]
            if weight is None or weight.shape[axis] != size:
                raise DistilleryError(
                    f"{path}: made for another U-Net, {layer} does not fit; load it on the one "
                    "that it was trained on"
                )
