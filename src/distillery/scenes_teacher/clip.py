"""A small CLIP of its own, for the CLIP score and for Frechet features.

In: scenes and a tokenizer. Out: a transformers `CLIPModel` trained with the symmetric contrastive
loss (Radford et al. 2021, arXiv 2103.00020) and its `CLIPImageProcessor`. It shares no weights
with the generator's text encoder, so it judges the generator from outside.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from distillery.data.scenes.draw import Scene
from distillery.diffusion.objectives import Terms
from distillery.scenes_teacher.pool import draw_pool, unit_range
from distillery.scenes_teacher.tokens import text_config, tokenize
from distillery.scenes_teacher.training import Inputs, settings_of, train


def build_clip(recipe: Mapping, tokenizer: CLIPTokenizer, *, image_px: int, seed: int) -> CLIPModel:
    """Untrained text and image transformers."""
    torch.manual_seed(seed)
    text = text_config(
        tokenizer,
        width=recipe["text_width"],
        projection=recipe["projection"],
        num_layers=recipe["text_layers"],
        num_heads=recipe["heads"],
    )
    vision = CLIPVisionConfig(
        hidden_size=recipe["image_width"],
        intermediate_size=4 * recipe["image_width"],
        projection_dim=recipe["projection"],
        num_hidden_layers=recipe["image_layers"],
        num_attention_heads=recipe["heads"],
        image_size=image_px,
        patch_size=recipe["patch_px"],
    )
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=recipe["projection"],
    )
    return CLIPModel(config)


def build_processor(image_px: int) -> CLIPImageProcessor:
    """Resize, centre crop, scale to [-1, 1]."""
    return CLIPImageProcessor(
        size={"shortest_edge": image_px},
        crop_size={"height": image_px, "width": image_px},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def train_clip(
    clip: CLIPModel, tokenizer: CLIPTokenizer, recipe: Mapping, *, folder: Path, seed: int
) -> None:
    """Train in place, first on random batches, then on batches of lookalikes.

    One batch's other captions are the negatives. Among random scenes colour and background tell
    almost all captions apart, and shapes stay entangled with them (a linear probe found 0.59 of
    the shapes); scenes that share both differ in little else than shape, size and texture. A
    phase's `num_groups` is the number of such groups in a batch, 0 for random scenes. Phase i keeps
    its state in `folder`_i.
    """
    scenes = draw_pool(recipe["scenes_seed"], recipe["num_scenes"], "clip: scenes")
    images = np.stack([scene.image for scene in scenes])
    tokens = tokenize(tokenizer, [scene.caption for scene in scenes])
    groups = group_lookalikes(scenes)
    batch_size = recipe["batch_size"]

    def draw(num_groups: int, step: int, generator: torch.Generator) -> Inputs:
        if num_groups:
            rows = _pick_lookalikes(groups, num_groups, batch_size, generator)
        else:
            rows = torch.randint(len(images), (batch_size,), generator=generator)
        pixels = torch.from_numpy(unit_range(images[rows.numpy()]))
        return Inputs(input_ids=tokens[rows], pixel_values=pixels)

    for number, phase in enumerate(recipe["phases"]):
        train(
            clip,
            contrastive,
            functools.partial(draw, phase["num_groups"]),
            settings_of(recipe, phase),
            folder=folder.with_name(f"{folder.name}_{number}"),
            seed=seed + number,
        )
    clip.eval()


def contrastive(clip: CLIPModel, inputs: Inputs) -> Terms:
    """Symmetric cross-entropy of the right caption and the right image within the batch."""
    return {"contrastive": clip(**inputs, return_loss=True).loss}


def group_lookalikes(scenes: list[Scene]) -> list[Tensor]:
    """Row numbers of the scenes that share background and first colour, per such pair."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, scene in enumerate(scenes):
        groups.setdefault((scene.background, scene.objects[0].colour), []).append(row)
    return [torch.tensor(groups[key]) for key in sorted(groups)]


def _pick_lookalikes(
    groups: list[Tensor], num_groups: int, batch_size: int, generator: torch.Generator
) -> Tensor:
    """Rows of `num_groups` groups at random, equally many of each."""
    chosen = torch.randint(len(groups), (num_groups,), generator=generator).tolist()
    size = (batch_size // num_groups,)
    rows = [groups[g][torch.randint(len(groups[g]), size, generator=generator)] for g in chosen]
    return torch.cat(rows)
