"""All image metrics of one set of generated images, each with its interval and its settings.

In: uint8 images with their captions, the real images and the teacher's images of the same records
in the same order. Out: {name: (Estimate, settings)} and {name: reason} for what can't be measured.
Not here: reading and writing files (`evaluation`), distances of predictions (`prediction`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distillery.metrics import reader
from distillery.metrics.distribution import fid_with_interval, kid_with_interval, notes
from distillery.metrics.features import Extractor
from distillery.metrics.fidelity import PSNR_SETTINGS, SSIM_SETTINGS, psnr, ssim
from distillery.metrics.intervals import Estimate, bootstrap_mean
from distillery.metrics.text import clip_score

if TYPE_CHECKING:
    from distillery.metrics.lpips import Lpips

Measured = dict[str, tuple[Estimate, dict[str, Any]]]
NO_READER = "the reader knows scenes only; these captions do not describe any"


@dataclass(frozen=True)
class Measure:
    """The networks and interval settings that all models are measured with."""

    extractor: Extractor
    clip: Extractor
    prompt_prefix: str
    num_bootstrap: int
    num_blocks: int
    lpips: "Lpips | None" = None

    def distribution_of(self, x: np.ndarray, y: np.ndarray, reference: str) -> Measured:
        """FID (raw, bias-extrapolated) and KID of features [n, d] of images of the same records.

        Pairs of one record are left out of KID's cross term.
        """
        raw, corrected = fid_with_interval(x, y, self.num_blocks)
        kernel = kid_with_interval(x, y, self.num_blocks, paired=len(x) == len(y))
        settings = {
            **self.extractor.settings(),
            "reference": reference,
            "num_reference": len(y),
            "num_features": x.shape[1],
            "num_blocks": self.num_blocks,
            "notes": notes(len(x), len(y), x.shape[1]),
        }
        jackknife = {**settings, "interval": "jackknife over image blocks"}
        return {
            "fid": (raw, {**jackknife, "bias_extrapolated": corrected.value}),
            "fid_extrapolated": (corrected, {**jackknife, "raw": raw.value}),
            "kid": (
                kernel,
                {**settings, "kernel": "(x.y/d + 1)^3", "interval": "disjoint subsets"},
            ),
        }

    def text(
        self, images: np.ndarray, captions: Sequence[str], features: np.ndarray | None = None
    ) -> Measured:
        """CLIP score of each image with its caption.

        `features` are the extractor's of these images: not made again where it is the CLIP model.
        """
        if features is None or self.clip is not self.extractor:
            features = self.clip.image_features(images)
        return self.text_of(features, captions)

    def text_of(self, features: np.ndarray, captions: Sequence[str]) -> Measured:
        """The same from the CLIP model's image features [n, d]."""
        settings = {**self.clip.settings(), "prompt_prefix": self.prompt_prefix, "weight": 2.5}
        scores = clip_score(features, self.text_features(captions))
        return {"clip_score": self.mean(scores, settings)}

    def text_features(self, captions: Sequence[str]) -> np.ndarray:
        """Embeddings [n, d] of the captions behind the prompt prefix."""
        return self.clip.text_features([self.prompt_prefix + caption for caption in captions])

    def fidelity(self, images: np.ndarray, other: np.ndarray, reference: str) -> Measured:
        """PSNR, SSIM and, with a backbone, LPIPS to another image of the same record."""
        named = {"reference": reference}
        found = {
            "psnr": self.mean(psnr(images, other), {**PSNR_SETTINGS, **named}),
            "ssim": self.mean(ssim(images, other), {**SSIM_SETTINGS, **named}),
        }
        if self.lpips is not None:
            values = self.lpips(images, other)
            found["lpips"] = self.mean(values, {**self.lpips.settings(), **named})
        return found

    def reader(
        self, images: np.ndarray, captions: Sequence[str]
    ) -> tuple[Measured, dict[str, str]]:
        """The reader's recalls, over the images whose caption asks for something; skipped ones."""
        rows = [reader.recall(image, text) for image, text in zip(images, captions, strict=True)]
        values = {name: [row[name] for row in rows] for name in reader.METRICS}
        asked = {n: v for n, v in values.items() if any(value is not None for value in v)}
        found = {name: self.mean(v, {"reader": "rules"}) for name, v in asked.items()}
        return found, {name: NO_READER for name in values if name not in found}

    def mean(
        self, values: Sequence[float | None] | np.ndarray, settings: dict[str, Any]
    ) -> tuple[Estimate, dict[str, Any]]:
        """Mean of per-image values with its bootstrap interval; None: the image has no value."""
        estimate = bootstrap_mean(values, self.num_bootstrap)
        return estimate, {
            **settings,
            "interval": "bootstrap over images",
            "num_resamples": self.num_bootstrap,
        }


def renamed(measured: Measured, rename: Callable[[str], str]) -> Measured:
    """The same metrics under other names: `fid` as `fid_teacher`."""
    return {rename(name): value for name, value in measured.items()}
