"""The teacher's ControlNets for canny, sketch and segmentation maps.

In: the trained U-Net and text encoder, scenes. Out: a diffusers `ControlNetModel` per kind (Zhang
et al. 2023, arXiv 2302.05543), trained against the frozen U-Net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from distillery.data.conditions import KINDS
from distillery.data.scenes.draw import Scene
from distillery.models.normalise import normalise_hint_network
from distillery.scenes_teacher.fit import Schedule, fit
from distillery.scenes_teacher.pca import PatchPca
from distillery.scenes_teacher.pool import draw_pool, unit_range
from distillery.scenes_teacher.tokens import tokenize
from distillery.scenes_teacher.unet import (
    build_scheduler,
    min_snr_weight,
    stratified_timesteps,
    v_target,
)

NUM_INIT_HINTS = 256

CONDITIONS: dict[str, Callable[[Scene], np.ndarray]] = {n: kind.of for n, kind in KINDS.items()}


def to_hint(maps: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in [0, 1], as the pipelines pass condition maps."""
    return maps.permute(0, 3, 1, 2).float() / 255


def build_controlnet(unet: UNet2DConditionModel, recipe: Mapping, *, seed: int) -> ControlNetModel:
    """A copy of the U-Net's encoder with zero convolutions and a hint network."""
    torch.manual_seed(seed)
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=tuple(recipe["hint_channels"])
    )


def train_controlnet(
    kind: str,
    controlnet: ControlNetModel,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    pca: PatchPca,
    scale: float,
    recipe: Mapping,
    *,
    state_path: Path,
    seed: int,
) -> None:
    """Train `controlnet` in place; U-Net and text encoder stay as they are."""
    scenes = draw_pool(recipe["scenes_seed"], recipe["num_scenes"], f"controlnet {kind}: scenes")
    hints = torch.from_numpy(np.stack([CONDITIONS[kind](scene) for scene in scenes]))
    pixels = unit_range(np.stack([scene.image for scene in scenes]))
    latents = torch.from_numpy(pca.encode(pixels)) * scale
    tokens = tokenize(tokenizer, [scene.caption for scene in scenes])
    empty = tokenize(tokenizer, [""])
    device, alphas = unet.device, build_scheduler().alphas_cumprod
    for frozen in (unet, text_encoder):
        frozen.requires_grad_(False).eval()
    unet.to(memory_format=torch.channels_last)
    controlnet.to(memory_format=torch.channels_last).train()
    normalise_hint_network(controlnet, to_hint(hints[:NUM_INIT_HINTS]).to(device))

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(scenes), (recipe["batch_size"],), generator=generator)
        dropped = torch.rand(len(rows), 1, generator=generator) < recipe["caption_dropout"]
        states = text_encoder(torch.where(dropped, empty, tokens[rows]).to(device))[0]
        timesteps = stratified_timesteps(len(rows), len(alphas), generator)
        noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
        noisy, target = v_target(alphas, latents[rows], noise, timesteps)
        noisy = noisy.to(device, memory_format=torch.channels_last)
        hint = to_hint(hints[rows]).to(device)
        steps = timesteps.to(device)
        down, mid = controlnet(noisy, steps, states, hint, return_dict=False)
        predicted = unet(
            noisy,
            steps,
            states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        error = (predicted - target.to(device)).square().mean(dim=(1, 2, 3))
        weight = min_snr_weight(alphas, timesteps, recipe["min_snr_gamma"]).to(device)
        return (weight * error).mean()

    for number, phase in enumerate(recipe["phases"][kind]):
        schedule = Schedule(
            phase["num_steps"], phase["lr"], recipe["warmup_steps"], ema_decay=recipe["ema_decay"]
        )
        path = state_path.with_name(f"controlnet_{kind}_{number}.state.safetensors")
        modules, label = {"controlnet": controlnet}, f"controlnet {kind}, phase {number}"
        fit(label, modules, loss, schedule, state_path=path, seed=seed + number)
    controlnet.eval()
