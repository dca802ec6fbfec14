"""How well images follow edge maps.

In: uint8 images [n, H, W, 3] and the maps that they were made with, in the same order. Out: one
value per image, NaN where a map asks for nothing. Torch is not imported.
"""

from typing import Any

import cv2
import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.conditions.canny import HIGH, LOW, canny_map
from distillery.metrics.meter import MAPS, Chunk, Meter, Tools, needing

EDGE_TOLERANCE_PX = 1
EDGE_METRICS = ("edge_nmse", "edge_nmse_symmetric", "edge_f1", "edge_precision", "edge_recall")
SETTINGS = {
    "detector": f"OpenCV Canny({LOW}, {HIGH})",
    "tolerance_px": EDGE_TOLERANCE_PX,
    "note": "an image without any edges scores 1.0 in edge_nmse",
}
_KERNEL = np.ones((2 * EDGE_TOLERANCE_PX + 1,) * 2, np.uint8)


def edges(image: np.ndarray) -> np.ndarray:
    """Canny(100, 200) edges of a uint8 RGB image (H, W, 3) as bool (H, W)."""
    return canny_map(image)[:, :, 0] > 0


def edge_metrics(images: np.ndarray, maps: np.ndarray) -> dict[str, np.ndarray]:
    """The five `EDGE_METRICS`, float64 [n] each, of images against edge maps [n, H, W] in [0, 1].

    With E the map and E' the image's own Canny edges: `edge_nmse` is ||E' - E||^2 / ||E||^2,
    `edge_nmse_symmetric` is ||E' - E||^2 / (||E'||^2 + ||E||^2). Precision and recall count edge
    pixels (maps above 0.5) with one of the other side within 1 px; F1 is their harmonic mean.
    Images whose map is empty are NaN everywhere. Raises DistilleryError for another range or size.
    """
    _check(images, maps)
    rows = [_edges_of_pair(image, wanted) for image, wanted in zip(images, maps, strict=True)]
    return dict(zip(EDGE_METRICS, np.array(rows, dtype=np.float64).T, strict=True))


def _edges_of_pair(image: np.ndarray, wanted: np.ndarray) -> tuple[float, ...]:
    energy = float((wanted.astype(np.float64) ** 2).sum())
    if not energy:
        return (np.nan,) * len(EDGE_METRICS)
    drawn = edges(image)
    error = float(((drawn - wanted.astype(np.float64)) ** 2).sum())
    return (error / energy, error / (drawn.sum() + energy), *match_edges(drawn, wanted > 0.5))


def match_edges(drawn: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """(F1, precision, recall) of bool edge maps (H, W), matched within one pixel.

    A side without edges makes its share 0.
    """
    precision, recall = _share_near(drawn, wanted), _share_near(wanted, drawn)
    both = precision + recall
    return (2 * precision * recall / both if both else 0.0), precision, recall


def _share_near(edge: np.ndarray, other: np.ndarray) -> float:
    """Share of `edge` pixels with one of `other` within the tolerance."""
    near = cv2.dilate(other.astype(np.uint8), _KERNEL) > 0
    return float(near[edge].mean()) if edge.any() else 0.0


def _check(images: np.ndarray, maps: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise DistilleryError(f"images: {images.dtype}; 8-bit integers in [0, 255] are due")
    if images.shape[:3] != maps.shape:
        raise DistilleryError(
            f"images {images.shape} and edge maps {maps.shape} differ in size or number; make "
            "them at one resolution"
        )
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise DistilleryError(
            f"edge maps in [{maps.min():g}, {maps.max():g}]; [0, 1] is due, divide 8-bit by 255"
        )


def _values(chunk: Chunk, tools: Tools) -> dict[str, np.ndarray]:
    return edge_metrics(chunk.images, chunk.maps[..., 0].astype(np.float64) / 255)


def _settings(tools: Tools, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    return {**SETTINGS, "left_out_empty_maps": int(np.isnan(columns["edge_f1"]).sum())}


EDGES = Meter(
    needs=dict.fromkeys(EDGE_METRICS, needing(MAPS)),
    values=_values,
    settings=_settings,
    group="edges",
    empty="every {kind} map is empty",
)
