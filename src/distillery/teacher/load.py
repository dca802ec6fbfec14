"""A teacher folder in diffusers layout becomes frozen modules, and their few operations.

In: a folder that `prepare_teacher` made. Out: a `Teacher`, its encoders and its decoder. Only
safetensors are read. Not here: fetching a teacher, what its output is trained on.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from distillery.core.errors import DamagedError, DistilleryError, reason_of
from distillery.core.weights import require_recorded
from distillery.models.load import load_controlnet, load_network, load_unet
from distillery.teacher.parts import REQUIRED
from distillery.teacher.supported import prediction_type, read_config

transformers_logging.disable_progress_bar()  # weights load faster than its bar is read
_REMEDY = "get it again, or rerun prepare_teacher"
_MAX_TIMESTEPS = 10**5


@dataclass(frozen=True)
class Teacher:
    """Frozen modules in eval mode; `scheduler` has the teacher's noise schedule."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler

    @property
    def prediction_type(self) -> str:
        """`epsilon` or `v_prediction`: what the U-Net's output means."""
        return self.scheduler.config.prediction_type


def load_teacher(folder: Path, device: torch.device | str, dtype: torch.dtype) -> Teacher:
    """Load all five components; raises DistilleryError naming the one that is missing."""
    return Teacher(
        tokenizer=load_tokenizer(folder),
        text_encoder=load_module(CLIPTextModel, folder, "text_encoder", device, dtype),
        vae=load_module(AutoencoderKL, folder, "vae", device, dtype),
        unet=load_unet(_require(folder, "unet"), device, dtype),
        scheduler=load_scheduler(folder),
    )


def controlnet_kinds(folder: Path) -> list[str]:
    """The kinds of condition maps for which a teacher's folder has a ControlNet, sorted."""
    return sorted(path.name.removeprefix("controlnet_") for path in folder.glob("controlnet_*"))


def load_teacher_controlnet(folder: Path, kind: str, unet: UNet2DConditionModel) -> ControlNetModel:
    """The teacher's ControlNet for maps of `kind`, frozen, where and as precise as `unet` is.

    Raises DistilleryError naming the folder where there is none.
    """
    place = folder / f"controlnet_{kind}"
    if not place.is_dir():
        raise DistilleryError(f"{place}: not found; the teacher has no ControlNet for {kind}")
    return load_controlnet(place, unet.device, unet.dtype)


def load_scheduler(folder: Path) -> DDPMScheduler:
    """The teacher's noise schedule, whatever sampler its folder names.

    Raises DistilleryError for a teacher that predicts neither eps nor v, or has no such schedule.
    """
    require_recorded(folder / "scheduler")
    config = read_config(folder / "scheduler" / "scheduler_config.json")
    prediction_type(folder, config)
    known = inspect.signature(DDPMScheduler.__init__).parameters
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 1 < steps <= _MAX_TIMESTEPS:
        raise _no_schedule(folder, f"num_train_timesteps is {steps}, not 2 to {_MAX_TIMESTEPS}")
    try:
        schedule = DDPMScheduler(**{name: config[name] for name in config if name in known})
    except Exception as error:  # of whatever stands in the config
        raise _no_schedule(folder, reason_of(error)) from None
    betas = schedule.betas
    if len(betas) != schedule.config.num_train_timesteps or not ((betas >= 0) & (betas <= 1)).all():
        raise _no_schedule(folder, "betas outside of 0 to 1, or not one for each timestep")
    return schedule


def _no_schedule(folder: Path, why: str) -> DistilleryError:
    return DistilleryError(
        f"{folder / 'scheduler'}: no schedule of betas that DDPMScheduler knows ({why}); use a "
        "teacher that has one, or correct scheduler_config.json"
    )


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The teacher's tokenizer."""
    path = _require(folder, "tokenizer")
    require_recorded(path)
    try:
        return CLIPTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # whatever a hostile file makes the library raise
        raise DamagedError(f"{path}: cannot load: {reason_of(error)}; {_REMEDY}") from error


def load_module(
    kind: type, folder: Path, name: str, device: torch.device | str, dtype: torch.dtype
) -> Any:
    """One frozen component with weights, as strictly as `load_network` does."""
    module: nn.Module = load_network(
        kind.from_pretrained, _require(folder, name), remedy=_REMEDY, torch_dtype=dtype
    )
    return module.to(device).requires_grad_(False).eval()


def _require(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_dir():
        raise DistilleryError(f"{path}: not found; the teacher needs {', '.join(REQUIRED)}")
    return path


def alphas_cumprod(scheduler: DDPMScheduler) -> Tensor:
    """alpha_bar at every training timestep, float32; exactly 0 at the end where it is rescaled."""
    return scheduler.alphas_cumprod.to(torch.float32)


@torch.no_grad()
def encode_prompts(teacher: Teacher, captions: Sequence[str]) -> Tensor:
    """Text embeddings [n, length, width] as StableDiffusionPipeline computes them.

    Captions longer than the tokenizer's and the encoder's limit are cut there, as in the pipeline.
    """
    encoder = teacher.text_encoder
    tokens = teacher.tokenizer(
        list(captions),
        padding="max_length",
        max_length=min(  # some tokenizers name no length
            teacher.tokenizer.model_max_length, encoder.config.max_position_embeddings
        ),
        truncation=True,
        return_tensors="pt",
    ).to(encoder.device)
    use_mask = getattr(encoder.config, "use_attention_mask", False)
    return encoder(tokens.input_ids, attention_mask=tokens.attention_mask if use_mask else None)[0]


@torch.no_grad()
def encode_images(teacher: Teacher, images: np.ndarray) -> Tensor:
    """Scaled latents [n, C, h, w] of uint8 RGB images [n, H, W, 3]: the mean, not a sample."""
    vae = teacher.vae
    pixels = torch.from_numpy(images).to(vae.device).permute(0, 3, 1, 2)
    mean = vae.encode(pixels.to(vae.dtype) / 127.5 - 1).latent_dist.mean
    return (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> np.ndarray:
    """uint8 RGB images [n, H, W, 3] of scaled latents [n, C, h, w]."""
    unscaled = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    pixels = vae.decode(unscaled + (vae.config.shift_factor or 0.0)).sample
    return as_pixels(pixels.float() / 2 + 0.5)


def as_pixels(images: Tensor) -> np.ndarray:
    """uint8 [n, H, W, 3] of float32 [n, 3, H, W], of which [0, 1] is kept."""
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()
