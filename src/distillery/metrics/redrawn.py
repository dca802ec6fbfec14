"""How well images follow maps that can be drawn again from an image: depth, normals, soft edges.

In: uint8 images [n, H, W, 3], the maps that they were made with, and what draws such maps. Out: one
value per image. Torch is not imported. Not here: drawing (`data.conditions`), edges, regions.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from distillery.data.conditions import KINDS
from distillery.data.conditions.kind import ConditionKind
from distillery.metrics.meter import MAPS, Chunk, Meter, Tools, needing
from distillery.metrics.miou import resize_labels
from distillery.metrics.reader import read_segmentation

Draw = Callable[[np.ndarray], np.ndarray]
SCENES = "scenes"
# Kinds whose maps are compared as they are, and whose metrics they give.
DISTANCES = ("depth", "pose", "scribble", "softedge", "blur")


def need_of(kind: str) -> str:
    """What a metric of these maps needs: their drawer."""
    return f"drawer of {kind}"


def drawer_of(kind: ConditionKind, settings: Mapping[str, Any], device: str) -> Draw | None:
    """What draws an image's map as `extract_conditions` does; None where nothing does.

    `settings[kind]` may be `scenes`: the reader's regions give what follows from class ids.
    """
    if settings.get(kind.name) == SCENES:
        return None if kind.of_labels is None else partial(_by_reader, kind.of_labels)
    if kind.draw is None and not kind.is_learned(settings):
        return None
    return kind.open(settings, device)


def _by_reader(of_labels: Draw, image: np.ndarray) -> np.ndarray:
    return of_labels(resize_labels(read_segmentation(image), image.shape[:2]))


def map_distance(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Mean |a - b| of two uint8 maps (H, W, ...) in [0, 1]; grey is three equal channels."""
    a, b = (m if m.ndim == 3 else m[:, :, None] for m in (drawn, wanted))
    return float(np.abs(a.astype(np.float64) - b).mean() / 255)


def normal_angle(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Mean angle in degrees between the normals of two maps uint8 (H, W, 3), each of length 1."""
    a, b = (_directions(m) for m in (drawn, wanted))
    return float(np.degrees(np.arccos(np.clip((a * b).sum(axis=2), -1, 1))).mean())


def _directions(colours: np.ndarray) -> np.ndarray:
    vectors = colours.astype(np.float64) / 127.5 - 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-6)


def _values(
    kind: str, metric: str, compare: Callable[[np.ndarray, np.ndarray], float],
    chunk: Chunk, tools: Tools,
) -> dict[str, np.ndarray]:  # fmt: skip
    draw = tools.drawers[kind]
    pairs = zip(chunk.images, chunk.maps, strict=True)
    return {metric: np.array([compare(draw(image), wanted) for image, wanted in pairs])}


def _meter(kind: str, metric: str, compare: Callable[[np.ndarray, np.ndarray], float]) -> Meter:
    return Meter(
        needs={metric: needing(MAPS, need_of(kind))},
        values=partial(_values, kind, metric, compare),
        settings=lambda tools, columns: {"drawn_again_by": tools.drawn_by.get(kind, "builtin")},
        group=kind,
    )


REDRAWN: tuple[Meter, ...] = (
    *(_meter(kind, f"{kind}_distance", map_distance) for kind in DISTANCES),
    _meter("normal", "normal_angle", normal_angle),
)


def no_drawer(kind: str) -> str:
    """Why the metrics of a kind can't be had."""
    return f"nothing draws {kind} maps of images: {KINDS[kind].no_drawer()}"
