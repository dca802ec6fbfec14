"""Which teachers can be distilled, told by their configs.

In: a teacher's folder, or a ControlNet's and the teacher's. Out: nothing, or a DistilleryError that
names the folder, what it is and what is needed. No weights are read and no torch is imported.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.teacher.parts import INDEX, REMEDY

PREDICTION_TYPES = ("epsilon", "v_prediction")
_GET = "get it again"
_NEEDED = "only Stable Diffusion 1.x and 2.x and what has their parts can be distilled"
_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
_HINT_CHANNELS = [16, 32, 96, 256]
_VAE_LEVELS = [128, 256, 512, 512]
# Further inputs of a U-Net; each key with the value that means none.
_FURTHER_INPUTS = {
    "addition_embed_type": None, "class_embed_type": None, "num_class_embeds": None,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None, "time_cond_proj_dim": None,
    "conv_in_kernel": 3, "dual_cross_attention": False, "class_embeddings_concat": False,
    "attention_type": "default",
}  # fmt: skip
# What else a ControlNet may be told or do; each key with the value that means nothing.
_FURTHER_OF_CONTROLNETS = {
    "addition_embed_type": None, "class_embed_type": None, "num_class_embeds": None,
    "encoder_hid_dim": None, "global_pool_conditions": False,
}  # fmt: skip
_CONSISTENCY = ("LCMScheduler", "TCDScheduler")
# What must be alike for a ControlNet's residuals to fit a U-Net; with diffusers' defaults.
_FITTING = {
    "cross_attention_dim": 1280, "in_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2, "transformer_layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}  # fmt: skip


def require_supported(folder: Path) -> None:
    """Raise DistilleryError for a folder of another model than this project distils."""
    index = read_config(folder / INDEX) if (folder / INDEX).is_file() else {}
    pipeline = str(index.get("_class_name", "folder"))
    own = [name for name in ("transformer", "prior", "text_encoder_2", "decoder") if
           (folder / name).is_dir() or index.get(name) not in (None, [None, None])]  # fmt: skip
    if own or "XL" in pipeline:
        part = f" with the component {own[0]}" if own else ""
        raise DistilleryError(f"{folder}: a {pipeline}{part}; {_NEEDED}")
    if not index and (folder / "config.json").is_file():
        kind = _class_of(read_config(folder / "config.json"))
        raise DistilleryError(f"{folder}: {kind} alone and no whole pipeline; {REMEDY}")


def require_parts(folder: Path) -> None:
    """Raise DistilleryError for components of classes or inputs that a teacher can't have."""
    for name, wanted in _CLASSES.items():
        config = read_config(folder / name / "config.json")
        if (kind := config.get("_class_name", wanted)) != wanted:
            raise DistilleryError(f"{folder / name}: {kind}, not {wanted}; {_NEEDED}")
    vae = read_config(folder / "vae/config.json")
    if (channels := (vae.get("in_channels", 3), vae.get("out_channels", 3))) != (3, 3):
        raise DistilleryError(
            f"{folder / 'vae'}: takes {channels[0]} channels and gives {channels[1]}, not 3 and 3; "
            f"{_NEEDED}"
        )
    _require_scaling(folder, vae)
    levels = vae.get("block_out_channels", _VAE_LEVELS)
    if len(levels) != len(_VAE_LEVELS):
        raise DistilleryError(
            f"{folder / 'vae'}: makes latents {2 ** (len(levels) - 1)} times smaller than images, "
            f"not 8 times; {_NEEDED}"
        )
    text = read_config(folder / "text_encoder/config.json")
    if "CLIP" not in _class_of(text).upper():
        raise DistilleryError(
            f"{folder / 'text_encoder'}: {_class_of(text)}, not CLIPTextModel; {_NEEDED}"
        )
    unet = read_config(folder / "unet/config.json")
    for key, none in _FURTHER_INPUTS.items():
        if (given := unet.get(key, none)) != none:
            raise DistilleryError(
                f"{folder / 'unet'}: {key} is {given}: this U-Net takes more than a noisy image, a "
                f"time and a text; {_NEEDED}"
            )


def _require_scaling(folder: Path, vae: Mapping[str, Any]) -> None:
    """Latents are multiplied and divided by it."""
    factor, shift = vae.get("scaling_factor"), vae.get("shift_factor")
    numbers = [value for value in (factor, shift) if value is not None]
    is_finite = all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
    if not is_finite or (factor is not None and factor <= 0):
        raise DistilleryError(
            f"{folder / 'vae'}: scaling_factor {factor}, shift_factor {shift}: no numbers that "
            f"latents can be scaled by; correct config.json, or {_GET}"
        )


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; DistilleryError where there is none."""
    return read_json(path, remedy=_GET)


def _class_of(config: Mapping[str, Any]) -> str:
    named = config.get("_class_name") or (config.get("architectures") or [None])[0]
    return str(named or config.get("model_type") or "an unknown model")


def prediction_type(folder: Path, scheduler: Mapping[str, Any]) -> str:
    """What the U-Net of a scheduler's config predicts; DistilleryError unless it is eps or v."""
    name = str(scheduler.get("_class_name", ""))
    is_flow = name.startswith("FlowMatch") or scheduler.get("use_flow_sigmas")
    if is_flow or "EDM" in name or "sigma_data" in scheduler:
        raise _unsupported(folder, name or "use_flow_sigmas")
    if name in _CONSISTENCY:
        raise _unsupported(folder, f"{name}, of a model that is distilled to few steps already,")
    if not {"beta_schedule", "trained_betas"} & set(scheduler):
        raise _unsupported(folder, f"{name or 'a scheduler'} without beta_schedule")
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise _unsupported(folder, f"prediction_type {kind!r}")
    return kind


def _unsupported(folder: Path, what: str) -> DistilleryError:
    return DistilleryError(
        f"{folder / 'scheduler'}: {what} is not supported: use a teacher that predicts "
        f"{' or '.join(PREDICTION_TYPES)} under a schedule of betas"
    )


def require_fit(folder: Path) -> None:
    """Raise DistilleryError where U-Net, VAE and text encoder do not belong together."""
    unet, vae, text = (
        read_json(folder / name / "config.json") for name in ("unet", "vae", "text_encoder")
    )
    latent = vae.get("latent_channels", 4)
    if not unet.get("in_channels", 4) == unet.get("out_channels", 4) == latent:
        raise DistilleryError(
            f"{folder}: the U-Net takes {unet.get('in_channels')} channels and gives "
            f"{unet.get('out_channels')}, the VAE has {latent}: for inpainting, depth, "
            "upscaling or editing; only text-to-image teachers work"
        )
    width, wanted = text.get("hidden_size"), unet.get("cross_attention_dim", 1280)
    if width is not None and width != wanted:
        raise DistilleryError(
            f"{folder}: the text encoder gives {width} features, the U-Net takes {wanted}; "
            "use the text encoder that the U-Net was trained with"
        )


def _of(config: Mapping[str, Any], key: str) -> Any:
    """A value, its default where it is not given; [2, 2, 2] is 2 for what may differ by level."""
    value = _FITTING[key] if config.get(key) is None else config[key]
    is_by_level = isinstance(value, list) and not isinstance(_FITTING[key], list)
    return value[0] if is_by_level and len(set(map(str, value))) == 1 else value


def require_fitting_controlnet(kind: str, place: Path, teacher: Path) -> None:
    """Raise DistilleryError where a ControlNet was made for another U-Net, or other maps."""
    own = read_config(place / "config.json")
    if (made := own.get("_class_name")) != "ControlNetModel":
        raise DistilleryError(f"{place}: {made}, not ControlNetModel; use a plain ControlNet")
    unet = read_json(teacher / "unet/config.json")
    vae = read_json(teacher / "vae/config.json")
    hint = own.get("conditioning_embedding_out_channels") or _HINT_CHANNELS
    needed = {key: (_of(own, key), _of(unet, key)) for key in _FITTING}
    needed |= {key: (own.get(key, none), none) for key, none in _FURTHER_OF_CONTROLNETS.items()}
    needed["conditioning_channels"] = (own.get("conditioning_channels", 3), 3)
    halvings = len(vae.get("block_out_channels", _VAE_LEVELS)) - 1
    needed["halvings of the map (conditioning_embedding_out_channels)"] = (len(hint) - 1, halvings)
    for key, (given, wanted) in needed.items():
        if given != wanted:
            raise DistilleryError(
                f"{place}: this ControlNet ({kind}) has {key} {given}, the teacher {teacher} needs "
                f"{wanted}; use one that was made for its U-Net"
            )
