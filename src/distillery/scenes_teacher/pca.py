"""A closed-form encoder: PCA of 8x8 patches, written into the weights of an `AutoencoderKL`.

In: images in [-1, 1]. Out: the basis, and an `AutoencoderKL` whose encoder computes exactly this
projection, so that latents are spatial, nearly linear in the image and need no training. The
decoder is left as it was initialised: `vae.py` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

PATCH_PX = 8
# A group norm sees two carriers of +-CARRIER per group of four channels: they fix its variance to
# CARRIER^2 / 2 within 1e-4, and their average gives back the mean that it subtracts.
CARRIER = 300.0
# SiLU(x) = x to 1e-7 for x >= 20.
SILU_OFFSET = 20.0
LOG_VARIANCE = -12.0


@dataclass(frozen=True)
class PatchPca:
    """`z = basis @ (patch - mean)`; `basis` (latents, 192), `mean` (192,), patch as (h, w, c)."""

    basis: np.ndarray
    mean: np.ndarray

    def encode(self, images: np.ndarray) -> np.ndarray:
        """float (N, 3, H, W) in [-1, 1] to float32 (N, latents, H/8, W/8)."""
        latents = (_patches(images) - self.mean) @ self.basis.T
        return np.ascontiguousarray(latents.transpose(0, 3, 1, 2), dtype=np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """The linear reconstruction (least squares): float32 (N, 3, H, W)."""
        patches = latents.transpose(0, 2, 3, 1) @ np.linalg.pinv(self.basis).T + self.mean
        n, h, w, _ = patches.shape
        grid = patches.reshape(n, h, w, PATCH_PX, PATCH_PX, 3).transpose(0, 5, 1, 3, 2, 4)
        return grid.reshape(n, 3, h * PATCH_PX, w * PATCH_PX).astype(np.float32)


def _patches(images: np.ndarray) -> np.ndarray:
    n, c, height, width = images.shape
    h, w = height // PATCH_PX, width // PATCH_PX
    grid = images.reshape(n, c, h, PATCH_PX, w, PATCH_PX).transpose(0, 2, 4, 3, 5, 1)
    return grid.reshape(n, h, w, PATCH_PX * PATCH_PX * c)


def fit_patch_pca(images: np.ndarray, num_latents: int, whitening: float) -> PatchPca:
    """PCA of the 8x8 patches of images (N, 3, H, W) in [-1, 1].

    Component i is divided by its standard deviation to the power `whitening` (0: plain PCA, 1:
    all latents have unit variance). Each component's largest weight is positive, which makes the
    result unique.
    """
    patches = _patches(images).reshape(-1, PATCH_PX * PATCH_PX * 3).astype(np.float64)
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((patches - mean).T))
    vectors = vectors[:, ::-1][:, :num_latents].T
    signs = np.sign(vectors[np.arange(num_latents), np.abs(vectors).argmax(axis=1)])
    deviations = np.sqrt(values[::-1][:num_latents])
    basis = signs[:, None] * vectors / deviations[:, None] ** whitening
    return PatchPca(basis, mean)


@torch.no_grad()
def write_encoder(vae: nn.Module, pca: PatchPca) -> None:
    """Make `vae.encoder` compute `pca.encode` exactly (float32: to about 1e-3).

    The VAE has four levels of equal width without residual blocks (`layers_per_block=0`), two
    channels per latent and norm groups of four. Level by level 2x2 pixels go into channels
    (3, 12, 48, 192); past the width, PCA keeps what the final basis needs: the chain of three
    stride-2 convolutions is the basis' own factorisation, because the 16 latents use at most
    `width` combinations of 4x4 pixels per position (see `_factorise`).
    """
    encoder = vae.encoder
    width = encoder.conv_in.out_channels
    for parameter in encoder.parameters():
        parameter.zero_()
    encoder.conv_in.weight[torch.arange(3), torch.arange(3), 1, 1] = 1.0
    first, second, last = _factorise(pca.basis, width)
    downs = [block.downsamplers[0].conv for block in encoder.down_blocks if block.downsamplers]
    for conv, matrix in zip(downs, (first, second, last), strict=True):
        out_channels, in_channels = matrix.shape[0], matrix.shape[-1]
        kernel = torch.from_numpy(matrix).float().permute(0, 3, 1, 2)
        conv.weight[:out_channels, :in_channels, :2, :2] = kernel
    _write_head(encoder, downs[-1], pca)


def _factorise(basis: np.ndarray, width: int):
    """Three maps (out, 2, 2, in) whose composition is `basis` on 8x8 patches.

    The middle one would give 4 * 4 * 3 = 48 channels; of these the `width` leading right singular
    directions of the basis' four quadrants are kept, which loses what the basis hardly uses.
    """
    first = np.zeros((12, 2, 2, 3))
    for number, (row, column, colour) in enumerate(np.ndindex(2, 2, 3)):
        first[number, row, column, colour] = 1.0
    # Patch axes: (8 rows, 8 columns, colour) = (quadrant, pair, pixel) in each direction.
    cube = basis.reshape(-1, 2, 2, 2, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    quadrants = cube.reshape(-1, 48)
    directions = np.linalg.svd(quadrants, full_matrices=False)[2][:width]
    second = directions.reshape(-1, 2, 2, 12)
    last = (quadrants @ directions.T).reshape(basis.shape[0], 2, 2, -1)
    return first, second, last


def _write_head(encoder: nn.Module, conv: nn.Module, pca: PatchPca) -> None:
    """Channels 4g, 4g + 1 of norm group g carry two latents, 4g + 2 and 4g + 3 the carriers."""
    num_latents = pca.basis.shape[0]
    groups = encoder.conv_norm_out.num_groups
    width = conv.weight.shape[0]
    if width != 4 * groups or num_latents != 2 * groups:
        raise ValueError(f"width {width} and {num_latents} latents do not fit {groups} groups")
    latent_channels = torch.tensor([4 * (i // 2) + i % 2 for i in range(num_latents)])
    weight = conv.weight[:num_latents].clone()
    conv.weight.zero_()
    conv.weight[latent_channels] = weight
    conv.bias[latent_channels] = -torch.from_numpy(pca.basis @ pca.mean).float()
    conv.bias[2::4], conv.bias[3::4] = CARRIER, -CARRIER
    for resnet in encoder.mid_block.resnets:
        resnet.norm1.weight.fill_(1.0)
        resnet.norm2.weight.fill_(1.0)
    encoder.conv_norm_out.weight.fill_(1.0)
    encoder.conv_norm_out.bias.fill_(SILU_OFFSET)
    scale = CARRIER / 2**0.5
    out = encoder.conv_out.weight
    for i, channel in enumerate(latent_channels.tolist()):
        group = channel - channel % 4
        out[i, channel, 1, 1] = scale
        out[i, group + 2, 1, 1] = out[i, group + 3, 1, 1] = -scale / 2
    encoder.conv_out.bias[num_latents:] = LOG_VARIANCE


def latent_scale(latents: Tensor | np.ndarray) -> float:
    """The `scaling_factor` that gives latents a unit standard deviation, to five digits."""
    return float(f"{1.0 / float(latents.std()):.5g}")
