"""How well images keep the regions of segmentation maps: mean IoU, by torchmetrics.

In: uint8 images [n, H, W, 3], their maps, and a segmenter that labels both alike. Out: one value
per image, NaN where a map is void altogether. Torch is imported when the first pair is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.conditions.segmentation import segmentation_ids
from distillery.metrics.meter import MAPS, SEGMENTER, Chunk, Meter, Tools, needing
from distillery.metrics.reader import read_segmentation

VOID_ID = 255
VOID_COLOUR = 224 << 16 | 224 << 8 | 192  # PASCAL VOC's, as `label_colours` numbers it


@dataclass(frozen=True)
class Segmenter:
    """A named function from an image and its condition map, uint8 [H, W, 3], to their labels."""

    name: str
    labels: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    void: int = VOID_ID

    def ious(self, images: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """The mean IoU of each image [n, H, W, 3] with its map, float64 [n]."""
        pairs = (self.labels(image, map_) for image, map_ in zip(images, maps, strict=True))
        return np.array([iou_of_pair(seen, wanted, self.void) for seen, wanted in pairs])


def scenes_segmenter() -> Segmenter:
    """The reader of scenes on the image, against the classes of the map's colours."""

    def labels(image: np.ndarray, map_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = read_segmentation(image)
        return seen, resize_labels(segmentation_ids(map_), seen.shape)

    return Segmenter("reader of scenes", labels)


def open_segmenter(folder: str, device: str) -> Segmenter:
    """The learned segmenter in a local folder; raises DistilleryError where there is none."""
    from distillery.data.conditions.learned import load_segmenter

    return learned_segmenter(folder, load_segmenter(Path(folder), device))


def learned_segmenter(name: str, segment: Callable[[np.ndarray], np.ndarray]) -> Segmenter:
    """A segmenter that colours classes as the maps do; PASCAL VOC's void colour is left out."""
    return Segmenter(
        name, lambda image, map_: (label_colours(segment(image)), label_colours(map_)), VOID_COLOUR
    )


def mean_iou(seen: np.ndarray, wanted: np.ndarray, void: int = VOID_ID) -> np.ndarray:
    """Per image the IoU averaged over its classes, float64 [n], of labels [n, H, W].

    Classes are those present in either map. Pixels whose wanted label is `void` are left out of
    both; an image that is void altogether is NaN.
    """
    if seen.shape != wanted.shape:
        raise DistilleryError(f"label maps {seen.shape} and {wanted.shape} differ; match them")
    return np.array([iou_of_pair(a, b, void) for a, b in zip(seen, wanted, strict=True)])


def iou_of_pair(seen: np.ndarray, wanted: np.ndarray, void: int) -> float:
    """`mean_iou` of one pair of label maps [H, W]."""
    import torch
    from torchmetrics.functional.segmentation import mean_iou as by_torchmetrics

    known = wanted != void
    labels, ids = np.unique(np.stack([seen[known], wanted[known]]), return_inverse=True)
    if not len(labels):
        return np.nan
    pair = torch.from_numpy(ids.reshape(2, 1, -1)).long()
    return float(by_torchmetrics(*pair, num_classes=len(labels), input_format="index"))


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map [H, W] at (height, width) of `size` by the nearest pixel, losslessly equal."""
    if labels.shape == tuple(size):
        return labels
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


def label_colours(colours: np.ndarray) -> np.ndarray:
    """Colour maps uint8 [..., 3] as labels int64 [...], one number per exact colour."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return (red << 16) | (green << 8) | blue


def _values(chunk: Chunk, tools: Tools) -> dict[str, np.ndarray]:
    return {"miou": tools.segmenter.ious(chunk.images, chunk.maps)}


MIOU = Meter(
    needs={"miou": needing(MAPS, SEGMENTER)},
    values=_values,
    settings=lambda tools, columns: {
        "segmenter": tools.segmenter.name,
        "classes": "present in either map, per image",
        "void": "left out",
    },
    group="labels",
    empty="every {kind} map is empty",
)
