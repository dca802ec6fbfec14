"""CLIP score: how well images go with their captions.

In: image and text embeddings [n, d] in pairs. Out: one score per pair. Source: Hessel et al. 2021,
"CLIPScore", eq. 1. Torch is not imported. Not here: the embeddings (`features`), intervals.
"""

from typing import Any

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.metrics.meter import CAPTIONS, CLIP, Chunk, Meter, Tools, needing

WEIGHT = 2.5


def clip_score(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """2.5 max(cos, 0) of each pair of embeddings, float64 [n] in [0, 2.5]."""
    if images.shape != texts.shape or images.ndim != 2:
        raise DistilleryError(
            f"embeddings {images.shape} and {texts.shape}; one pair per image is due"
        )
    norms = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    if not norms.all():
        raise DistilleryError("an embedding is zero; look at the CLIP model")
    return WEIGHT * np.clip((images * texts).sum(axis=1) / norms, 0, None)


def _values(chunk: Chunk, tools: Tools) -> dict[str, np.ndarray]:
    texts = tools.text_features(chunk.captions)
    return {"clip_score": clip_score(chunk.features(tools.clip), texts)}


def settings(tools: Tools) -> dict[str, Any]:
    """What stands beside a CLIP score."""
    return {**tools.clip.settings(), "prompt_prefix": tools.prompt_prefix, "weight": WEIGHT}


CLIP_SCORE = Meter(
    needs={"clip_score": needing(CAPTIONS, CLIP)},
    values=_values,
    settings=lambda tools, columns: settings(tools),
)
