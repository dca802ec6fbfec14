"""Named networks that turn images and captions into vectors.

In: `teacher_clip` (the CLIP model beside the teacher), a local folder or a hub id; uint8 images.
Out: float64 vectors, and settings that say which network and which resizing. A network that can't
be had is an error, never replaced by another. Not here: distances of the vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from distillery.core.artifacts import hash_files, hash_json, read_json
from distillery.core.errors import DistilleryError, reason_of
from distillery.core.weights import require_numbers
from distillery.metrics.shape_probe import RECORD, TEACHER_CLIP, read_accuracy
from distillery.models.load import load_network
from distillery.sampling.samples import batches

transformers_logging.disable_progress_bar()  # weights load faster than its bar is read
BATCH_SIZE = 64  # fixed, so that features do not depend on a setting of speed
_FILES = ("*.json", "*.safetensors", "*.txt")


@dataclass(frozen=True)
class Preprocess:
    """Resize of the shorter side, centre crop and normalisation, as the network was trained."""

    size_px: int
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_folder(cls, folder: Path) -> "Preprocess":
        """Read preprocessor_config.json; raises DistilleryError without one."""
        path = folder / "preprocessor_config.json"
        values = read_json(path, remedy="a saved model has one")
        try:
            size = values.get("crop_size") or values["size"]
            size_px = (
                size if isinstance(size, int) else size.get("height", size.get("shortest_edge"))
            )
            mean, std = (tuple(map(float, values[f"image_{of}"])) for of in ("mean", "std"))
            resample = Image.Resampling(values.get("resample", Image.Resampling.BICUBIC))
            if len(mean) != 3 or len(std) != 3 or size_px < 1:
                raise ValueError(f"image_mean {mean}, image_std {std}, size {size_px}")
        except Exception as error:  # of a file from anywhere, which may hold anything
            reason = reason_of(error)
            raise DistilleryError(f"{path}: unusable ({reason}); a saved model has one") from None
        return cls(int(size_px), int(resample), mean, std)

    def describe(self) -> str:
        """Resize mode, for the settings of a metric."""
        name = Image.Resampling(self.resample).name.lower()
        return f"shorter side to {self.size_px} px ({name}, antialiased), centre crop"

    def __call__(self, images: np.ndarray) -> Tensor:
        """float32 [n, 3, size, size] of uint8 RGB [n, H, W, 3]."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise DistilleryError(
                f"images {images.dtype} {images.shape}; 8-bit RGB [n, H, W, 3] is due"
            )
        resized = np.stack([self._resize(image) for image in images])
        scaled = resized.astype(np.float32) / 255
        normal = (scaled - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(normal).permute(0, 3, 1, 2)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if height == width == self.size_px:
            return image
        ratio = self.size_px / min(height, width)
        size = (max(round(width * ratio), self.size_px), max(round(height * ratio), self.size_px))
        resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling(self.resample)))
        top, left = (size[1] - self.size_px) // 2, (size[0] - self.size_px) // 2
        return resized[top : top + self.size_px, left : left + self.size_px]


@dataclass(frozen=True)
class Extractor:
    """A frozen network with its preprocessing; `tokenizer` only where it is a CLIP model.

    `shape_probe` is the recorded accuracy of the teacher's own, None without a record.
    """

    name: str
    fingerprint: str
    model: nn.Module
    preprocess: Preprocess
    tokenizer: Any = None
    shape_probe: float | None = None

    def settings(self) -> dict[str, Any]:
        """What stands beside every number made with it."""
        probe = {"shape_probe": self.shape_probe} if self.name == TEACHER_CLIP else {}
        return {
            "extractor": self.name,
            "extractor_fingerprint": self.fingerprint[:16],
            "resize": self.preprocess.describe(),
            **probe,
        }

    @torch.no_grad()
    def image_features(self, images: np.ndarray) -> np.ndarray:
        """Features float64 [n, d] of uint8 images; of a CLIP model the projected embedding."""
        rows = [self._image_batch(self.preprocess(batch)) for batch in batches(images, BATCH_SIZE)]
        return torch.cat(rows).double().cpu().numpy()

    def prepare(self, image: np.ndarray) -> Tensor:
        """float32 [3, size, size] of one uint8 image of any size, for `prepared_features`."""
        return self.preprocess(image[None])[0]

    @torch.no_grad()
    def prepared_features(self, pixels: Sequence[Tensor]) -> np.ndarray:
        """Features float64 [n, d] of up to `BATCH_SIZE` prepared images.

        The network always sees a whole batch, filled up with the last image, so that the features
        of an image are the same bits in any company. Raises DistilleryError where it gives none.
        """
        missing = BATCH_SIZE - len(pixels)
        try:
            rows = self._image_batch(torch.stack([*pixels, *[pixels[-1]] * missing]))
        except (AttributeError, TypeError, ValueError) as error:
            raise DistilleryError(
                f"{self.name}: gives no vector for an image ({reason_of(error)}); name a vision "
                "model as CLIP, SigLIP, DINOv2 or ViT"
            ) from None
        return rows[: len(pixels)].double().cpu().numpy()

    def _image_batch(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(next(self.model.parameters()).device)
        tower = getattr(self.model, "vision_model", self.model)  # of two: SigLIP
        pooled = tower(pixel_values=pixels).pooler_output
        return pooled.flatten(1) if self.tokenizer is None else self.model.visual_projection(pooled)

    @torch.no_grad()
    def text_features(self, captions: Sequence[str]) -> np.ndarray:
        """Projected embeddings float64 [n, d]; longer captions are cut at the tokenizer's limit."""
        if self.tokenizer is None:
            raise DistilleryError(f"{self.name}: no CLIP model, so it can't score captions")
        rows = []
        for batch in batches(captions, BATCH_SIZE):
            tokens = self.tokenizer(
                list(batch), padding="max_length", truncation=True, return_tensors="pt",
                max_length=self.model.config.text_config.max_position_embeddings,
            ).to(next(self.model.parameters()).device)  # fmt: skip
            pooled = self.model.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
            rows.append(self.model.text_projection(pooled))
        return torch.cat(rows).double().cpu().numpy()


def _kind_of(config: Path) -> str:
    remedy = "name the folder of a vision model of transformers"
    if (kind := read_json(config, remedy=remedy).get("model_type")) is None:
        raise DistilleryError(f"{config}: names no model_type; {remedy}")
    return kind


def load_extractor(name: str, teacher: Path | None, device: torch.device | str) -> Extractor:
    """Load `teacher_clip`, a folder or a hub id; raises DistilleryError if it can't be had."""
    folder = locate_network(name, teacher)
    is_clip = _kind_of(folder / "config.json") == "clip"
    try:
        model = load_network(
            _model_class(is_clip).from_pretrained, folder, may_hold_more=not is_clip,
            remedy="get it again", dtype=torch.float32,
        )  # fmt: skip
        require_numbers(model.state_dict(), folder)
        tokenizer = _load_tokenizer(folder) if is_clip else None
    except DistilleryError:
        raise
    except Exception as error:  # of the libraries, for a damaged file
        raise DistilleryError(f"{folder}: no usable vision model: {reason_of(error)}") from None
    kept = {n: h for n, h in hash_files(folder).items() if n.endswith((".safetensors", ".json"))}
    kept.pop(RECORD, None)
    return Extractor(
        name,
        hash_json(kept),
        model.to(device).requires_grad_(False).eval(),
        Preprocess.from_folder(folder),
        tokenizer,
        read_accuracy(folder),
    )


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise DistilleryError(  # transformers makes one without words in silence
            f"{folder}: no tokenizer.json or vocab.json; copy the CLIP model's tokenizer into it"
        )
    return CLIPTokenizer.from_pretrained(folder)


def _model_class(is_clip: bool) -> Any:
    """CLIPModel, or the much slower to import AutoModel for any other network."""
    if is_clip:
        return CLIPModel
    from transformers import AutoModel

    return AutoModel


def locate_network(
    name: str, teacher: Path | None, *, key: str = "clip_model and evaluate.feature_extractor"
) -> Path:
    """The folder of `teacher_clip`, of a local folder's or of a hub id's weights.

    Raises DistilleryError, which names the params `key`, where there is none.
    """
    if name == TEACHER_CLIP:
        if teacher is not None and (teacher / "clip").is_dir():
            return teacher / "clip"
        raise DistilleryError(
            f"{TEACHER_CLIP}: {teacher}/clip not found, this teacher brings no CLIP model; set "
            f"evaluate.{key} to a local folder of one"
        )
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:
        raise DistilleryError(
            f"{name}: neither a local folder nor to be had from the hub "
            f"({type(error).__name__}); download it elsewhere and give its folder"
        ) from None
