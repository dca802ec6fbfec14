"""How well generated images follow their condition maps: edges, segmentation, sketch.

In: uint8 images [n, H, W, 3] and the maps that they were made with, in the same order. Out: one
value per image, NaN where a map asks for nothing. Not here: networks, intervals, reading of maps
(`conditioned`). Torch is not imported.
"""

from collections.abc import Callable

import cv2
import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.conditions.canny import HIGH, LOW, canny_map
from distillery.data.conditions.sketch import sketch_map

EDGE_TOLERANCE_PX = 1
VOID_ID = 255
VOID_COLOUR = 224 << 16 | 224 << 8 | 192  # PASCAL VOC's, as `label_colours` numbers it
EDGE_METRICS = ("edge_nmse", "edge_nmse_symmetric", "edge_f1", "edge_precision", "edge_recall")
NAMES = {
    "canny": EDGE_METRICS,
    "sketch": ("sketch_clip_score", "sketch_similarity"),
    "segmentation": ("miou",),
}
KINDS = tuple(NAMES)
EDGE_SETTINGS = {
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
    found = edges(image)
    error = float(((found - wanted.astype(np.float64)) ** 2).sum())
    return (error / energy, error / (found.sum() + energy), *match_edges(found, wanted > 0.5))


def match_edges(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """(F1, precision, recall) of bool edge maps (H, W), matched within one pixel.

    A side without edges makes its share 0.
    """
    precision, recall = _share_near(found, wanted), _share_near(wanted, found)
    both = precision + recall
    return (2 * precision * recall / both if both else 0.0), precision, recall


def _share_near(edge: np.ndarray, other: np.ndarray) -> float:
    """Share of `edge` pixels with one of `other` within the tolerance."""
    near = cv2.dilate(other.astype(np.uint8), _KERNEL) > 0
    return float(near[edge].mean()) if edge.any() else 0.0


def mean_iou(seen: np.ndarray, wanted: np.ndarray, void: int = VOID_ID) -> np.ndarray:
    """Per image the IoU averaged over its classes, float64 [n], of labels [n, H, W].

    Classes are those present in either map. Pixels whose wanted label is `void` are left out of
    both; an image that is void altogether is NaN.
    """
    if seen.shape != wanted.shape:
        raise DistilleryError(f"label maps {seen.shape} and {wanted.shape} differ; match them")
    return np.array([_iou_of_pair(a, b, void) for a, b in zip(seen, wanted, strict=True)])


def _iou_of_pair(seen: np.ndarray, wanted: np.ndarray, void: int) -> float:
    known = wanted != void
    seen, wanted = seen[known], wanted[known]
    ious = []
    for label in np.union1d(seen, wanted):
        a, b = seen == label, wanted == label
        ious.append((a & b).sum() / (a | b).sum())
    return float(np.mean(ious)) if ious else np.nan


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label maps [n, H, W] at (height, width) of `size` by the nearest pixel, losslessly equal."""
    if labels.shape[1:] == tuple(size):
        return labels
    resized = [cv2.resize(x, size[::-1], interpolation=cv2.INTER_NEAREST) for x in labels]
    return np.stack(resized)


def sketches(images: np.ndarray) -> np.ndarray:
    """The built-in sketch of each image, uint8 [n, H, W, 3]."""
    return np.stack([sketch_map(image) for image in images])


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of embeddings [n, d], float64 [n]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if a.shape != b.shape or not norms.all():
        raise DistilleryError(f"embeddings {a.shape} and {b.shape} do not pair up, or are zero")
    return (a * b).sum(axis=1) / norms


def label_colours(colours: np.ndarray) -> np.ndarray:
    """Colour maps uint8 [n, H, W, 3] as labels int64 [n, H, W], one number per exact colour."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return (red << 16) | (green << 8) | blue


def segment_all(segmenter: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """`segmenter`'s map of each image, stacked."""
    return np.stack([segmenter(image) for image in images])


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
