"""How well images follow sketches, and their sketches the captions.

In: uint8 images [n, H, W, 3], the sketches that they were made with, captions, a CLIP model. Out:
one value per image. Torch is not imported. Not here: the sketch (`data.conditions.sketch`).
"""

from typing import Any

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.conditions.sketch import sketch_map
from distillery.metrics import clip_score
from distillery.metrics.meter import CAPTIONS, CLIP, MAPS, Chunk, Meter, Tools, needing


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of embeddings [n, d], float64 [n]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if a.shape != b.shape or not norms.all():
        raise DistilleryError(f"embeddings {a.shape} and {b.shape} do not pair up, or are zero")
    return (a * b).sum(axis=1) / norms


def _values(chunk: Chunk, tools: Tools) -> dict[str, np.ndarray]:
    drawn = tools.clip.image_features(np.stack([sketch_map(image) for image in chunk.images]))
    columns = {"sketch_similarity": cosine(drawn, tools.clip.image_features(chunk.maps))}
    if chunk.captions is not None:
        texts = tools.text_features(chunk.captions)
        columns["sketch_clip_score"] = clip_score.clip_score(drawn, texts)
    return columns


def _settings(tools: Tools, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    with_captions = "sketch_clip_score" in columns
    settings = clip_score.settings(tools) if with_captions else tools.clip.settings()
    return {**settings, "sketch": "builtin"}


SKETCH = Meter(
    needs={
        "sketch_clip_score": needing(MAPS, CLIP, CAPTIONS),
        "sketch_similarity": needing(MAPS, CLIP),
    },
    values=_values,
    settings=_settings,
    group="sketch",
    empty="every {kind} map is empty",
)
