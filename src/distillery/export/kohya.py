"""A guidance student's LoRA with the key names and metadata of kohya's sd-scripts.

In: a dense U-Net with the LoRA. Out: one `.safetensors` file that A1111, ComfyUI and diffusers'
`load_lora_weights` read. Its `ss_*` entries say what those tools show: rank, alpha, base
model. No dates: equal LoRAs give equal bytes. Not here: diffusers' and PEFT's forms.
"""

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish, room_for
from distillery.models.gate import same_unet
from distillery.models.lora.files import lora_state
from distillery.models.lora.layers import ADAPTER, lora_layers
from distillery.models.lowrank import LowRankUNet2DConditionModel

_SD2_TEXT_WIDTH = 1024  # of Stable Diffusion 2.x; 1.x has 768
_KINDS = {"lora_A": "lora_down", "lora_B": "lora_up"}


def write(
    unet: UNet2DConditionModel, out: Path, *, name: str, base_model: str, prediction_type: str
) -> Path:
    """The file `out`; `name` and `base_model` go to its metadata.

    Raises DistilleryError for a low-rank U-Net, whose layers those tools do not know, and where
    diffusers reads another LoRA from the file than `unet` has.
    """
    if isinstance(unet, LowRankUNet2DConditionModel):
        raise DistilleryError(
            "this LoRA was trained on a low-rank U-Net, whose layers other tools do not have; "
            "export --to single-file or --to diffusers, which merge both into one dense U-Net"
        )
    if out.suffix != ".safetensors":
        raise DistilleryError(f"{out}: must end in .safetensors, the format that is written")
    header = metadata(unet, name, base_model, prediction_type)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent)
    with room_for(out), scratch as folder:
        path = Path(folder) / "lora.safetensors"
        save_file(kohya_state(unet), path, metadata=header)
        _require_same(unet, path)
        with publish(out) as partial:
            path.rename(partial)
    return out


def kohya_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """`lora_unet_<layer, _ for .>.lora_down.weight`, `.lora_up.weight` and `.alpha`, a scalar."""
    alpha = torch.tensor(float(unet.peft_config[ADAPTER].lora_alpha))
    renamed = {}
    for name, tensor in lora_state(unet).items():
        layer, kind, _ = name.rsplit(".", 2)
        flat = "lora_unet_" + layer.replace(".", "_")
        renamed[f"{flat}.{_KINDS[kind]}.weight"] = tensor
        renamed[f"{flat}.alpha"] = alpha.clone()
    return renamed


def metadata(
    unet: UNet2DConditionModel, name: str, base_model: str, prediction_type: str
) -> Mapping[str, str]:
    """The `ss_*` entries of the file's header, all texts, as sd-scripts writes them."""
    config = unet.peft_config[ADAPTER]
    is_v2 = unet.config.cross_attention_dim == _SD2_TEXT_WIDTH
    return {
        "ss_output_name": name,
        "ss_sd_model_name": base_model,
        "ss_base_model_version": "sd_v2" if is_v2 else "sd_v1",
        "ss_v2": str(is_v2),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.r),
        "ss_network_alpha": str(float(config.lora_alpha)),
        "ss_training_comment": "guidance distilled: sample with guidance scale 1",
        "ss_v_parameterization": str(prediction_type == "v_prediction"),
    }


def _require_same(unet: UNet2DConditionModel, path: Path) -> None:
    """The base with the LoRA from the file must answer as `unet` does."""
    bare = copy.deepcopy(unet)
    bare.delete_adapters(ADAPTER)
    loader = StableDiffusionPipeline
    state, alphas, *_ = loader.lora_state_dict(
        str(path), unet_config=bare.config, return_lora_metadata=False
    )
    loader.load_lora_into_unet(state, alphas, bare)
    if set(lora_layers(bare)) != set(lora_layers(unet)):
        raise DistilleryError(f"{path.name}: diffusers reads other layers from it; do not use it")
    same_unet(unet, bare)
