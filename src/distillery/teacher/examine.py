"""Whether a teacher can be distilled, found out before anything is made of it.

In: a teacher's folder, or a ControlNet's. Out: nothing, or a DistilleryError that names the
component, what is wrong and what to do. Configs are compared, then each network is loaded once, one
after the other: every tensor must be there and hold numbers. Nothing that a stage makes depends on
this module.
"""

from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError, reason_of
from distillery.core.weights import require_numbers
from distillery.teacher.parts import (
    payload,
    require_components,
    require_safetensors,
    weights_of,
)
from distillery.teacher.supported import (
    read_config,
    require_fit,
    require_fitting_controlnet,
    require_parts,
    require_supported,
)

__computes__ = False  # it lets a teacher pass, or not
_SCHEDULE_ATOL = 1e-6  # Euler samplers put 2**-24 in the place of a last alpha of zero


def require_teacher(folder: Path) -> None:
    """A teacher with the ControlNets that it brings."""
    require_supported(folder)
    require_components(folder)
    require_parts(folder)
    require_fit(folder)
    for file in payload(folder):
        if file.suffix == ".safetensors":
            require_safetensors(file)
    _require_loadable(folder)
    for place in sorted(folder.glob("controlnet_*/config.json")):
        require_controlnet(place.parent.name.removeprefix("controlnet_"), place.parent, folder)


def require_controlnet(kind: str, place: Path, teacher: Path) -> None:
    """A ControlNet for maps of `kind`, made for the teacher's U-Net."""
    from distillery.models.load import load_controlnet

    require_fitting_controlnet(kind, place, teacher)
    for file in weights_of(place):
        if file.suffix == ".safetensors":
            require_safetensors(file)
    require_numbers(load_controlnet(place).state_dict(), place)


def _require_loadable(folder: Path) -> None:
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTextModel

    from distillery.models.load import load_unet
    from distillery.teacher.load import load_module, load_scheduler, load_tokenizer

    _require_own_sampler(folder, load_scheduler(folder))
    tokenizer = load_tokenizer(folder)
    encoder = load_module(CLIPTextModel, folder, "text_encoder", "cpu", torch.float32)
    if (num_tokens := len(tokenizer)) > (known := encoder.config.vocab_size):
        raise DistilleryError(
            f"{folder / 'tokenizer'}: {num_tokens} tokens, the text encoder knows {known}; use the "
            "tokenizer that it was trained with"
        )
    if set(tokenizer("a red kite").input_ids) <= set(tokenizer.all_special_ids):
        raise DistilleryError(
            f"{folder / 'tokenizer'}: knows no words; vocab.json and merges.txt, or tokenizer.json,"
            " are missing or empty: get them again"
        )
    require_numbers(encoder.state_dict(), folder / "text_encoder")
    vae = load_module(AutoencoderKL, folder, "vae", "cpu", torch.float32)
    require_numbers(vae.state_dict(), folder / "vae")
    require_numbers(load_unet(folder / "unet").state_dict(), folder / "unet")
    if (folder / "clip/config.json").is_file():
        load_module(CLIPModel, folder, "clip", "cpu", torch.float32)


def _require_own_sampler(folder: Path, schedule: Any) -> None:
    """The sampler that the folder names must take its own config, and have the same schedule."""
    import diffusers
    import torch

    place = folder / "scheduler"
    config = read_config(place / "scheduler_config.json")
    name = str(config.get("_class_name", "DDIMScheduler"))
    try:
        sampler = getattr(diffusers, name).from_config(config)
        sampler.set_timesteps(2)
    except Exception as error:  # of whatever stands in the config
        why = reason_of(error)
        raise DistilleryError(
            f"{place}: {name} does not take its scheduler_config.json ({why}); correct it, or get "
            "the teacher again"
        ) from None
    own = getattr(sampler, "alphas_cumprod", None)
    if own is None or not torch.allclose(own, schedule.alphas_cumprod, atol=_SCHEDULE_ATOL):
        raise DistilleryError(
            f"{place}: {name} has another noise schedule than its betas give; only teachers under "
            "a plain schedule of betas can be distilled"
        )
