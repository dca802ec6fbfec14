"""All image metrics of one set of generated images, each with its interval and its settings.

In: uint8 images with their captions, the real images and the teacher's images of the same records
in the same order. Out: {name: (Estimate, settings)} and {name: reason} for what can't be measured.
Not here: reading and writing files (`evaluation`), distances of predictions (`prediction`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillery.metrics import reader
from distillery.metrics.distribution import fid_with_interval, kid_with_interval, notes
from distillery.metrics.features import Extractor
from distillery.metrics.fidelity import PSNR_SETTINGS, SSIM_SETTINGS, psnr, ssim
from distillery.metrics.intervals import Estimate, bootstrap_mean
from distillery.metrics.text import clip_score

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

    def text(self, images: np.ndarray, captions: Sequence[str]) -> Measured:
        """CLIP score of each image with its caption."""
        return self.text_of(self.clip.image_features(images), captions)

    def text_of(self, features: np.ndarray, captions: Sequence[str]) -> Measured:
        """The same from the CLIP model's image features [n, d]."""
        texts = self.clip.text_features([self.prompt_prefix + caption for caption in captions])
        settings = {**self.clip.settings(), "prompt_prefix": self.prompt_prefix, "weight": 2.5}
        return {"clip_score": self._mean(clip_score(features, texts), settings)}

    def fidelity(self, images: np.ndarray, other: np.ndarray, reference: str) -> Measured:
        """PSNR and SSIM to another model's image of the same prompt and noise."""
        return {
            "psnr": self._mean(psnr(images, other), {**PSNR_SETTINGS, "reference": reference}),
            "ssim": self._mean(ssim(images, other), {**SSIM_SETTINGS, "reference": reference}),
        }

    def reader(
        self, images: np.ndarray, captions: Sequence[str]
    ) -> tuple[Measured, dict[str, str]]:
        """The reader's recalls, over the images whose caption asks for something; skipped ones."""
        rows = [reader.recall(image, text) for image, text in zip(images, captions, strict=True)]
        values = {n: [row[n] for row in rows if row[n] is not None] for n in reader.METRICS}
        found = {n: self._mean(np.array(v), {"reader": "rules"}) for n, v in values.items() if v}
        return found, {name: NO_READER for name in values if name not in found}

    def _mean(self, values: np.ndarray, settings: dict) -> tuple[Estimate, dict[str, Any]]:
        estimate = bootstrap_mean(values, self.num_bootstrap)
        return estimate, {
            **settings,
            "interval": "bootstrap over images",
            "num_resamples": self.num_bootstrap,
        }


def renamed(measured: Measured, rename: Callable[[str], str]) -> Measured:
    """The same metrics under other names: `fid` as `fid_teacher`."""
    return {rename(name): value for name, value in measured.items()}
