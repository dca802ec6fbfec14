"""The teacher's U-Net and text encoder, trained jointly on latents of scenes.

In: an encoder of pixels, a tokenizer, the recipe. Out: a `UNet2DConditionModel` and a
`CLIPTextModel` holding averaged weights. v-prediction with zero terminal SNR (Lin et al. 2024,
arXiv 2305.08891) and the min-SNR weight (Hang et al. 2023, arXiv 2303.09556).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from distillery.core.progress import track
from distillery.data.scenes.draw import draw_scene
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.objectives import Denoise, Diffusion, Terms
from distillery.scenes_teacher.pool import unit_range
from distillery.scenes_teacher.tokens import text_config, tokenize
from distillery.scenes_teacher.training import settings_of, train

ENCODE_CHUNK = 512


@dataclass(frozen=True)
class LatentPool:
    """Scaled latents (N, C, h, w), token ids (N, L), and the rows of one-object scenes."""

    latents: Tensor
    tokens: Tensor
    singles: Tensor
    multiples: Tensor


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's betas, rescaled to zero SNR at the last step; v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # unused with trailing spacing; diffusers warns about 0
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def build_unet(recipe: Mapping, *, num_latents: int, sample_size: int) -> UNet2DConditionModel:
    """Two levels, two residual blocks each, cross-attention at both."""
    channels = tuple(recipe["channels"])
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=num_latents,
        out_channels=num_latents,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=2,
        cross_attention_dim=recipe["text_width"],
        attention_head_dim=recipe["num_heads"],  # diffusers reads it as the number of heads
        norm_num_groups=recipe["norm_groups"],
    )


def build_text_encoder(recipe: Mapping, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text tower over the tokenizer's vocabulary."""
    return CLIPTextModel(
        text_config(
            tokenizer,
            width=recipe["text_width"],
            projection=recipe["text_width"],
            num_layers=recipe["text_layers"],
            num_heads=recipe["text_heads"],
        )
    )


def draw_latents(
    seed: int,
    num_scenes: int,
    encode: Callable[[np.ndarray], Tensor],
    tokenizer: CLIPTokenizer,
) -> LatentPool:
    """Draw, encode and tokenize scenes; images are dropped chunk by chunk."""
    latents, captions, singles = [], [], []
    for start in track(range(0, num_scenes, ENCODE_CHUNK), "latents of scenes", "chunk"):
        chunk = [draw_scene(seed, i) for i in range(start, min(start + ENCODE_CHUNK, num_scenes))]
        pixels = unit_range(np.stack([scene.image for scene in chunk]))
        latents.append(encode(pixels))
        captions += [scene.caption for scene in chunk]
        singles += [len(scene.objects) == 1 for scene in chunk]
    mask = torch.tensor(singles)
    return LatentPool(
        torch.cat(latents),
        tokenize(tokenizer, captions),
        mask.nonzero().flatten(),
        (~mask).nonzero().flatten(),
    )


def stratified_timesteps(batch: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """One uniform time step in each of `batch` equal intervals, in random order."""
    places = torch.arange(batch) + torch.rand(batch, generator=generator)
    return (places / batch * num_timesteps).long()[torch.randperm(batch, generator=generator)]


def _rows(pool: LatentPool, recipe: Mapping, step: int, generator: torch.Generator) -> Tensor:
    """A batch in which the share of one-object scenes falls to its natural value by half time."""
    natural = len(pool.singles) / len(pool.latents)
    progress = min(1.0, 2 * step / recipe["num_steps"])
    share = recipe["single_share_start"] * (1 - progress) + natural * progress
    num_singles = round(share * recipe["batch_size"])
    parts = ((pool.singles, num_singles), (pool.multiples, recipe["batch_size"] - num_singles))
    picks = [rows[torch.randint(len(rows), (n,), generator=generator)] for rows, n in parts]
    return torch.cat(picks)


@dataclass(frozen=True)
class Generator:
    """What makes latents of captions."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer


def diffusion_of(recipe: Mapping) -> Diffusion:
    """The teacher's schedule; errors of v weigh min(SNR, gamma) / (SNR + 1)."""
    scheduler = build_scheduler()
    return Diffusion.create(
        scheduler.alphas_cumprod,
        scheduler.config.prediction_type,
        space="x0",
        kind="min_snr",
        gamma=recipe["min_snr_gamma"],
    )


def train_unet(
    generator: Generator, pool: LatentPool, recipe: Mapping, *, folder: Path, seed: int
) -> None:
    """Train U-Net and text encoder in place and leave the averaged weights in them."""
    empty, diffusion = tokenize(generator.tokenizer, [""]), diffusion_of(recipe)
    unet = generator.unet.to(memory_format=torch.channels_last)

    def draw(step: int, generator: torch.Generator) -> Batch:
        rows = _rows(pool, recipe, step, generator)
        latents = pool.latents[rows].contiguous(memory_format=torch.channels_last)
        dropped = torch.rand(len(rows), 1, generator=generator) < recipe["caption_dropout"]
        tokens = torch.where(dropped, empty, pool.tokens[rows])
        timesteps = stratified_timesteps(len(rows), len(diffusion.alpha_bar), generator)
        noise = torch.randn(latents.shape, generator=generator)
        return Batch([str(row) for row in rows.tolist()], latents, noise, timesteps, {TEXT: tokens})

    lesson = Denoise(diffusion)

    def objective(both: nn.ModuleDict, batch: Batch) -> Terms:
        return lesson(both["unet"], encoded(both["text_encoder"], batch))

    both = nn.ModuleDict({"unet": unet, "text_encoder": generator.text_encoder})
    train(both, objective, draw, settings_of(recipe, recipe), folder=folder, seed=seed)
    both.eval()


def encoded(text_encoder: CLIPTextModel, batch: Batch) -> Batch:
    """The batch, whose `text` is token ids, with their embeddings instead."""
    text = text_encoder(batch.conditioning[TEXT]).last_hidden_state
    return dataclasses.replace(batch, conditioning={TEXT: text})
