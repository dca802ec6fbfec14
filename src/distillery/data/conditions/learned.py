"""Learned annotators from local folders.

In: a folder with safetensors weights. Out: a function from an RGB image to its condition map, of
the same size. Nothing is downloaded, pickled weights are refused, and a folder that can't be used
is an error that says what is missing.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from distillery.core.errors import DistilleryError, reason_of
from distillery.core.weights import require_numbers
from distillery.data.conditions.networks import open_network

_HED_WEIGHTS = "hed.safetensors"
_HED_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def load_segmenter(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """A `transformers` semantic segmenter (SegFormer, UPerNet, ...) saved in `folder`.

    The map colours class ids by the PASCAL VOC colour map, which holds 256 classes.
    """
    from transformers import AutoModelForSemanticSegmentation

    _require(folder, "*.safetensors", "a transformers segmenter, saved with save_pretrained")
    processor, model = open_network(
        AutoModelForSemanticSegmentation, str(folder), device, "segmentation"
    )
    colours = voc_colours(256)

    @torch.no_grad()
    def segment(image: np.ndarray) -> np.ndarray:
        inputs = processor(images=image, return_tensors="pt").to(device)
        logits = model(**inputs).logits
        full = functional.interpolate(logits, size=image.shape[:2], mode="bilinear")
        return colours[full[0].argmax(dim=0).cpu().numpy()]

    return segment


def voc_colours(num_classes: int) -> np.ndarray:
    """uint8 (num_classes, 3): PASCAL VOC's colour map, bits of the id spread over the channels."""
    ids = np.arange(num_classes)
    colours = np.zeros((num_classes, 3), dtype=np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (ids >> (3 * shift + channel)) & 1
            colours[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    return colours


class _HedBlock(nn.Module):
    def __init__(self, num_in: int, num_out: int, num_layers: int) -> None:
        super().__init__()
        sizes = [num_in] + [num_out] * num_layers
        self.convs = nn.Sequential(
            *(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes))
        )
        self.projection = nn.Conv2d(num_out, 1, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for conv in self.convs:
            x = conv(x).relu()
        return x, self.projection(x)


class Hed(nn.Module):
    """Holistically-nested edge detection (Xie and Tu, ICCV 2015) as ControlNet 1.1 ships it.

    Five VGG blocks, each with an edge map of its own; parameter names are those of
    `ControlNetHED_Apache2`, so its weights load after conversion to safetensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        num_in = 3
        for number, (num_out, num_layers) in enumerate(_HED_BLOCKS, start=1):
            setattr(self, f"block{number}", _HedBlock(num_in, num_out, num_layers))
            num_in = num_out

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Edge logits of the five scales for RGB (N, 3, H, W) in [0, 255]."""
        x, edges = image - self.norm, []
        for number in range(1, len(_HED_BLOCKS) + 1):
            x = x if number == 1 else functional.max_pool2d(x, 2)
            x, edge = getattr(self, f"block{number}")(x)
            edges.append(edge)
        return edges


def load_sketcher(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """The HED edge detector from `folder/hed.safetensors`: soft edges, uint8 (H, W)."""
    from safetensors.torch import load_file

    _require(folder, _HED_WEIGHTS, "ControlNetHED_Apache2's weights converted to safetensors")
    model = Hed()
    try:
        model.load_state_dict(load_file(folder / _HED_WEIGHTS))
    except Exception as error:  # of the libraries, for a damaged file
        raise DistilleryError(
            f"{folder / _HED_WEIGHTS}: not the weights of ControlNetHED_Apache2 "
            f"({reason_of(error)}); convert them again or set extract_conditions.sketch to builtin"
        ) from None
    require_numbers(model.state_dict(), folder / _HED_WEIGHTS)
    model = model.eval().to(device)

    @torch.no_grad()
    def sketch(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None]
        height, width = image.shape[:2]
        edges = [cv2.resize(e[0, 0].cpu().numpy(), (width, height)) for e in model(pixels.float())]
        strength = 1 / (1 + np.exp(-np.mean(edges, axis=0, dtype=np.float64)))
        return np.rint(255 * strength).astype(np.uint8)

    return sketch


def _require(folder: Path, pattern: str, what: str) -> None:
    if not folder.is_dir() or not any(folder.glob(pattern)):
        raise DistilleryError(
            f"{folder}: no {pattern} there; put {what} into it, or use builtin in "
            "extract_conditions"
        )
