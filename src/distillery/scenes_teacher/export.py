"""Writes the teacher as a plain diffusers folder.

In: the trained components. Out: files that `StableDiffusionPipeline.from_pretrained` and
`ControlNetModel.from_pretrained` load. Everything but the VAE, whose encoder needs float32, is
stored in half precision and loaded as float32: diffusers does so by default, transformers where
the configuration's `dtype` says so.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedModel,
)

from distillery.scenes_teacher.unet import build_scheduler

# Keys of saved configurations that hold a path of the machine that wrote them.
_VOLATILE_KEYS = ("_name_or_path",)


def save_half(model: ModelMixin, folder: Path) -> None:
    """Save a diffusers model in float16 with rows laid out contiguously."""
    half = copy.deepcopy(model).to(torch.float16, memory_format=torch.contiguous_format)
    half.save_pretrained(folder)
    drop_volatile_keys(folder)


def save_half_transformer(model: PreTrainedModel, folder: Path) -> None:
    """Save a transformers model in float16 whose configuration asks for float32."""
    copy.deepcopy(model).half().save_pretrained(folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for part in (values, *(value for value in values.values() if isinstance(value, dict))):
        part["dtype"] = "float32"
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def save_pipeline(
    folder: Path,
    *,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Write `model_index.json` and its five components."""
    pipeline = StableDiffusionPipeline(
        vae=vae.to(memory_format=torch.contiguous_format),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    save_half(unet, folder / "unet")
    save_half_transformer(text_encoder, folder / "text_encoder")
    drop_volatile_keys(folder)


def save_clip(
    folder: Path, *, clip: CLIPModel, processor: CLIPImageProcessor, tokenizer: CLIPTokenizer
) -> None:
    """Write the separate CLIP with its processor and tokenizer."""
    save_half_transformer(clip, folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    drop_volatile_keys(folder)


def drop_volatile_keys(folder: Path) -> None:
    """Remove machine paths from every JSON file below `folder`."""
    for path in sorted(folder.rglob("*.json")):
        values = json.loads(path.read_text())
        if any(values.pop(key, None) is not None for key in _VOLATILE_KEYS):
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
