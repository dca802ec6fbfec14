"""LPIPS: distance of two images in the feature space of a network (Zhang et al. 2018).

In: pairs of uint8 images; AlexNet or VGG-16 features with LPIPS' linear weights from a local
folder, or a CLIP model's vision tower, for work without any of them. Out: one value per pair and
settings that name the backbone: distances of different backbones do not compare. Only safetensors
are read. Not here: intervals.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distillery.core.artifacts import hash_files, hash_json
from distillery.core.errors import DistilleryError
from distillery.core.weights import require_numbers
from distillery.metrics.features import Extractor, load_extractor, locate_network
from distillery.metrics.pairs import check_pairs
from distillery.metrics.shape_probe import TEACHER_CLIP
from distillery.sampling.samples import batches

BATCH_SIZE = 64
CLIP_BACKBONE = "CLIP tower of the {}, unit-normalised hidden states"
# Kernel, stride and padding of each convolution, "M" a max-pooling of (size, stride); a feature is
# taken before every pooling and, in AlexNet, after each of the last three convolutions.
_ALEXNET = ((11, 4, 2), "M", (5, 1, 2), "M", (3, 1, 1), "T", (3, 1, 1), "T", (3, 1, 1), "T")
_VGG16 = tuple(itertools.chain.from_iterable(((3, 1, 1),) * n + ("M",) for n in (2, 2, 3, 3, 3)))
_POOLING = {"AlexNet": (3, 2), "VGG-16": (2, 2)}
# The ImageNet mean and deviation of inputs in [-1, 1], as LPIPS' ScalingLayer has them.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_HOW = (
    "put the public AlexNet's or VGG-16's `features.*` and LPIPS' `lin<k>.model.1.weight` into it "
    "as .safetensors files"
)


@dataclass(frozen=True)
class Lpips:
    """A backbone that gives layers of features, and how their differences are weighted.

    `layers` maps pixels float32 [n, 3, H, W] in [-1, 1] to features [n, C, ...] per layer, and
    `prepare` maps uint8 images [n, H, W, 3] to what `layers` takes; `weights` has one row [C] per
    layer, or is None: all channels count alike and layers are averaged instead of summed.
    `extractor` are the settings of the CLIP model whose tower it is.
    """

    name: str
    fingerprint: str
    layers: Callable[[Tensor], Sequence[Tensor]]
    prepare: Callable[[np.ndarray], Tensor]
    resize: str
    weights: tuple[Tensor, ...] | None = None
    extractor: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What stands beside every number made with it."""
        return {
            **self.extractor,
            "backbone": self.name,
            "backbone_fingerprint": self.fingerprint[:16],
            "resize": self.resize,
            "layers": "averaged, channels unweighted" if self.weights is None else "linear weights",
        }

    def __call__(self, images: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Distance of each pair of uint8 RGB images [n, H, W, 3], float64 [n]; 0 is the same."""
        check_pairs(images, reference)
        pairs = zip(batches(images, BATCH_SIZE), batches(reference, BATCH_SIZE), strict=True)
        return np.concatenate([self._batch(self.prepare(x), self.prepare(y)) for x, y in pairs])

    @torch.no_grad()
    def _batch(self, x: Tensor, y: Tensor) -> np.ndarray:
        total = torch.zeros(len(x), dtype=torch.float64)
        sides = zip(self.layers(x), self.layers(y), strict=True)
        for number, (a, b) in enumerate(sides):
            squared = (_unit(a) - _unit(b)).pow(2).flatten(2)  # [n, C, places]
            if self.weights is not None:
                squared = squared * self.weights[number][None, :, None]
            total += squared.sum(1).mean(1).double().cpu()
        return (total if self.weights is not None else total / (number + 1)).numpy()


def _unit(features: Tensor) -> Tensor:
    """Features [n, C, ...] of length 1 over channels (Zhang et al. 2018, section 3)."""
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)


def load_lpips(
    name: str,
    teacher: Path | None,
    device: torch.device | str,
    extractor: Extractor | None = None,
) -> Lpips:
    """`teacher_clip`, or a local folder or hub id of AlexNet, VGG-16 or a CLIP model.

    `extractor` is used instead of loading the same CLIP model twice. Raises DistilleryError where
    the weights can't be had or are neither network's.
    """
    if extractor is not None and extractor.name == name and extractor.tokenizer is not None:
        return clip_lpips(extractor)
    folder = locate_network(name, teacher, key="lpips")
    if (folder / "config.json").is_file():
        return clip_lpips(load_extractor(name, teacher, device))
    return _load_convolutions(folder, name, device)


def clip_lpips(extractor: Extractor) -> Lpips:
    """The vision tower's hidden states, embeddings included, a place per token."""
    if extractor.tokenizer is None:
        raise DistilleryError(f"{extractor.name}: no CLIP model, so no backbone; {_HOW}")
    tower = extractor.model.vision_model

    def layers(pixels: Tensor) -> list[Tensor]:
        pixels = pixels.to(next(tower.parameters()).device)
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [state.transpose(1, 2) for state in states]

    owner = "teacher" if extractor.name == TEACHER_CLIP else f"model {extractor.name}"
    return Lpips(
        CLIP_BACKBONE.format(owner),
        extractor.fingerprint,
        layers,
        extractor.preprocess,
        extractor.preprocess.describe(),
        extractor=extractor.settings(),
    )


def _load_convolutions(folder: Path, name: str, device: torch.device | str) -> Lpips:
    weights = _read(folder)
    convs = [key for key in weights if key.startswith("features.") and key.endswith(".weight")]
    kinds = {5: ("AlexNet", _ALEXNET), 13: ("VGG-16", _VGG16)}
    if len(convs) not in kinds:
        raise DistilleryError(f"{folder}: {len(convs)} convolutions `features.*.weight`; {_HOW}")
    kind, plan = kinds[len(convs)]
    try:
        stages = _build(kind, plan, weights).to(device).requires_grad_(False).eval()
        linear = tuple(
            weights[f"lin{k}.model.1.weight"].flatten().to(device) for k in range(len(stages))
        )
        for stage, line in zip(stages, linear, strict=True):
            if len(line) != _channels(stage):
                raise ValueError(f"{len(line)} linear weights for {_channels(stage)} channels")
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise DistilleryError(f"{folder}: not LPIPS' {kind} ({reason}); {_HOW}") from None

    def layers(pixels: Tensor) -> list[Tensor]:
        states = [check_range(pixels.to(device))]
        shift, scale = (pixels.new_tensor(v)[:, None, None].to(device) for v in (_SHIFT, _SCALE))
        states[0] = (states[0] - shift) / scale
        for stage in stages:
            states.append(stage(states[-1]))
        return states[1:]

    hashes = {n: h for n, h in hash_files(folder).items() if n.endswith(".safetensors")}
    return Lpips(f"{kind} of {name}", hash_json(hashes), layers, _to_unit_range, "none", linear)


def check_range(pixels: Tensor) -> Tensor:
    """The pixels, or DistilleryError where they leave [-1, 1]."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -1 and high <= 1):
        raise DistilleryError(
            f"LPIPS inputs in [{low:g}, {high:g}]; [-1, 1] is due: divide 8-bit by 127.5, less 1"
        )
    return pixels


def _to_unit_range(images: np.ndarray) -> Tensor:
    """float32 [n, 3, H, W] in [-1, 1] of uint8 images [n, H, W, 3]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's safetensors files."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise DistilleryError(f"{path}: cannot load: {error}; {_HOW}") from None
    require_numbers(tensors, folder)
    return tensors


def _build(kind: str, plan: Sequence[Any], weights: dict[str, Tensor]) -> nn.Sequential:
    """The network up to its last feature, cut into one stage per feature; widths as the weights'.

    Indices of `features.<i>` count convolutions, ReLUs and poolings, as torchvision does.
    """
    layers: list[nn.Module] = []
    stages: list[nn.Sequential] = []
    index = 0
    for item in plan:
        if item in ("M", "T"):
            stages.append(nn.Sequential(*layers))
            layers = [nn.MaxPool2d(*_POOLING[kind])] if item == "M" else []
            index += item == "M"
            continue
        layers += [_convolution(weights, index, *item), nn.ReLU()]
        index += 2
    return nn.Sequential(*stages)


def _convolution(
    weights: dict[str, Tensor], index: int, kernel: int, stride: int, padding: int
) -> nn.Conv2d:
    weight, bias = (weights[f"features.{index}.{part}"] for part in ("weight", "bias"))
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, stride, padding)
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv


def _channels(stage: nn.Sequential) -> int:
    return next(m.out_channels for m in reversed(stage) if isinstance(m, nn.Conv2d))
