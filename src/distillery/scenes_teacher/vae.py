"""The teacher's VAE: a closed-form PCA encoder and a trained convolutional decoder.

In: scenes. Out: a diffusers `AutoencoderKL` (factor 8, 16 latent channels). The encoder is fixed
before anything is trained, so the U-Net can learn while the decoder does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from distillery.diffusion.objectives import Terms
from distillery.scenes_teacher.pca import (
    PatchPca,
    fit_patch_pca,
    latent_scale,
    write_encoder,
)
from distillery.scenes_teacher.pool import draw_pool, unit_range
from distillery.scenes_teacher.training import Inputs, settings_of, train

NUM_LEVELS = 4


def build_vae(images: np.ndarray, *, num_latents: int, whitening: float, seed: int):
    """`AutoencoderKL` with the encoder of `images`' patches (N, 3, H, W), and the `PatchPca`."""
    torch.manual_seed(seed)
    pca = fit_patch_pca(images, num_latents, whitening)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * NUM_LEVELS,
        up_block_types=("UpDecoderBlock2D",) * NUM_LEVELS,
        block_out_channels=(2 * num_latents,) * NUM_LEVELS,
        layers_per_block=0,
        latent_channels=num_latents,
        norm_num_groups=num_latents // 2,
        sample_size=images.shape[-1],
        scaling_factor=latent_scale(pca.encode(images)),
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    write_encoder(vae, pca)
    vae.encoder.requires_grad_(False)
    return vae, pca


def pca_of_recipe(recipe: Mapping, *, seed: int) -> tuple[AutoencoderKL, PatchPca]:
    """The VAE before its decoder is trained, a function of the recipe's numbers alone."""
    scenes = draw_pool(recipe["scenes_seed"], recipe["num_pca_scenes"], "vae: scenes for PCA")
    images = unit_range(np.stack([scene.image for scene in scenes]))
    return build_vae(
        images, num_latents=recipe["num_latents"], whitening=recipe["whitening"], seed=seed
    )


def train_decoder(
    vae: AutoencoderKL, pca: PatchPca, recipe: Mapping, *, folder: Path, seed: int
) -> None:
    """Train `vae.decoder` in place on mean absolute plus squared error."""
    scenes = draw_pool(recipe["scenes_seed"] + 1, recipe["num_scenes"], "vae: scenes")
    images = np.stack([scene.image for scene in scenes])
    vae.decoder.to(memory_format=torch.channels_last)

    def draw(step: int, generator: torch.Generator) -> Inputs:
        rows = torch.randint(len(images), (recipe["batch_size"],), generator=generator).numpy()
        pixels = unit_range(images[rows])
        latents = torch.from_numpy(pca.encode(pixels))
        noise = torch.randn(latents.shape, generator=generator)
        noisy = latents + recipe["latent_noise"] * noise
        return Inputs(latents=noisy, pixels=torch.from_numpy(pixels))

    train(vae, reconstruction, draw, settings_of(recipe, recipe), folder=folder, seed=seed)


def reconstruction(vae: AutoencoderKL, inputs: Inputs) -> Terms:
    """Mean absolute and mean squared error of the decoded `latents` against the `pixels`."""
    error = vae.decode(inputs["latents"]).sample - inputs["pixels"]
    return {"absolute": error.abs().mean(), "squared": error.square().mean()}
