"""The teacher's ControlNets, one for each kind of condition map in the recipe.

In: the trained U-Net and text encoder, scenes. Out: a diffusers `ControlNetModel` per kind (Zhang
et al. 2023, arXiv 2302.05543), trained against the frozen U-Net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from distillery.data.conditions import KINDS
from distillery.data.conditions.reader import as_hint
from distillery.data.scenes.draw import Scene
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.control import ControlTeacher
from distillery.diffusion.controlnet import DistillControlNet, Factors
from distillery.diffusion.objectives import Terms
from distillery.models.normalise import normalise_hint_network
from distillery.scenes_teacher.pool import draw_pool, unit_range
from distillery.scenes_teacher.tokens import tokenize
from distillery.scenes_teacher.training import settings_of, train
from distillery.scenes_teacher.unet import Generator, diffusion_of, encoded, stratified_timesteps

NUM_INIT_HINTS = 256

CONDITIONS: dict[str, Callable[[Scene], np.ndarray]] = {n: kind.of for n, kind in KINDS.items()}


def build_controlnet(unet: UNet2DConditionModel, recipe: Mapping, *, seed: int) -> ControlNetModel:
    """A copy of the U-Net's encoder with zero convolutions and a hint network."""
    torch.manual_seed(seed)
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=tuple(recipe["hint_channels"])
    )


def train_controlnet(
    kind: str,
    controlnet: ControlNetModel,
    generator: Generator,
    encode: Callable[[np.ndarray], Tensor],
    recipe: Mapping,
    *,
    folder: Path,
    seed: int,
) -> None:
    """Train `controlnet` in place; U-Net and text encoder stay as they are.

    `encode` gives scaled latents of pixels in [-1, 1]. Phase i keeps its state in `folder`_i.
    """
    unet, diffusion = generator.unet, diffusion_of(recipe)
    for frozen in (unet, generator.text_encoder):
        frozen.requires_grad_(False).eval()
    unet.to(memory_format=torch.channels_last)
    controlnet.to(memory_format=torch.channels_last)
    hints, draw = _draws(kind, generator.tokenizer, encode, recipe, len(diffusion.alpha_bar))
    normalise_hint_network(controlnet, as_hint(hints[:NUM_INIT_HINTS]).to(unet.device))
    teacher = ControlTeacher(unet, residuals=None, view=None)
    lesson = DistillControlNet(kind, diffusion, teacher, Factors(1.0, 0.0, 0.0))

    def objective(model: nn.Module, batch: Batch) -> Terms:
        return lesson(model, encoded(generator.text_encoder, batch))

    for number, phase in enumerate(recipe["phases"][kind]):
        place = folder.with_name(f"{folder.name}_{number}")
        train(
            controlnet, objective, draw, settings_of(recipe, phase), folder=place,
            seed=seed + number,
        )  # fmt: skip
    controlnet.eval()


def _draws(
    kind: str,
    tokenizer: CLIPTokenizer,
    encode: Callable[[np.ndarray], Tensor],
    recipe: Mapping,
    num_timesteps: int,
) -> tuple[np.ndarray, Callable[[int, torch.Generator], Batch]]:
    """Maps of all scenes, uint8 [N, H, W, 3], and what draws a step's batch of them."""
    scenes = draw_pool(recipe["scenes_seed"], recipe["num_scenes"], f"controlnet {kind}: scenes")
    hints = np.stack([CONDITIONS[kind](scene) for scene in scenes])
    latents = encode(unit_range(np.stack([scene.image for scene in scenes])))
    tokens = tokenize(tokenizer, [scene.caption for scene in scenes])
    empty = tokenize(tokenizer, [""])

    def draw(step: int, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(scenes), (recipe["batch_size"],), generator=generator)
        dropped = torch.rand(len(rows), 1, generator=generator) < recipe["caption_dropout"]
        told = torch.where(dropped, empty, tokens[rows])
        timesteps = stratified_timesteps(len(rows), num_timesteps, generator)
        noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator)
        return Batch(
            [str(row) for row in rows.tolist()],
            latents[rows].contiguous(memory_format=torch.channels_last),
            noise,
            timesteps,
            {TEXT: told},
            conditions={kind: as_hint(hints[rows.numpy()])},
        )

    return hints, draw
