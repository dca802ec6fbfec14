"""Metrics of images against condition maps.

In: generated images, which of them are judged on which kind of map, and the maps. Out: per kind its
metrics over these images, and reasons for what can't be had. Edges are judged on canny maps, the
sketch on sketch maps, mIoU on segmentation maps. Not here: the values of one image (`control`),
reading maps from disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.conditions.segmentation import segmentation_ids
from distillery.metrics import control
from distillery.metrics.control import KINDS, NAMES
from distillery.metrics.reader import read_segmentation
from distillery.metrics.text import clip_score

if TYPE_CHECKING:
    from distillery.metrics.measure import Measure, Measured

NO_SEGMENTER = (
    "no segmenter: set extract_conditions.segmentation to a local folder of one, so that images "
    "and maps are labelled alike"
)


@dataclass(frozen=True)
class Segmenter:
    """A named function from images and condition maps, uint8 [n, H, W, 3], to an IoU per image."""

    name: str
    ious: Callable[[np.ndarray, np.ndarray], np.ndarray]


def scenes_segmenter() -> Segmenter:
    """The reader of scenes on the image, against the classes of the map's colours."""

    def ious(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
        seen = np.stack([read_segmentation(image) for image in images])
        wanted = np.stack([segmentation_ids(colours) for colours in maps])
        return control.mean_iou(seen, control.resize_labels(wanted, seen.shape[1:]))

    return Segmenter("reader of scenes", ious)


def open_segmenter(folder: str, device: str) -> Segmenter:
    """The learned segmenter in a local folder; raises DistilleryError where there is none."""
    from distillery.data.conditions.learned import load_segmenter

    return learned_segmenter(folder, load_segmenter(Path(folder), device))


def learned_segmenter(name: str, segment: Callable[[np.ndarray], np.ndarray]) -> Segmenter:
    """A segmenter that colours classes as the maps do; PASCAL VOC's void colour is left out."""

    def ious(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
        seen = control.label_colours(control.segment_all(segment, images))
        return control.mean_iou(seen, control.label_colours(maps), control.VOID_COLOUR)

    return Segmenter(name, ious)


def measure_control(
    measure: "Measure",
    images: np.ndarray,
    captions: Sequence[str],
    places: Mapping[str, Sequence[int]],
    maps: Callable[[str, Sequence[int]], np.ndarray],
    segmenter: Segmenter | None,
    *,
    given: bool = True,
) -> "tuple[Measured, dict[str, str]]":
    """Metrics of the images that have a map, and {name: reason} of what could not be measured.

    `places` says by kind which images are judged on its maps, and `maps(kind, indices)` are those
    uint8 [k, H, W, 3]. `per_image` of every estimate has a place for all images, None for those
    that are not judged on this kind. Not `given`: the images were made without the maps.
    """
    if unknown := set(places) - set(KINDS):
        raise DistilleryError(f"condition {min(unknown)!r}: not one of {', '.join(KINDS)}")
    found: Measured = {}
    skipped: dict[str, str] = {}
    for kind in KINDS:
        index = places.get(kind, [])
        if not len(index):
            skipped |= dict.fromkeys(NAMES[kind], f"no image is judged on a {kind} map")
            continue
        if kind == "segmentation" and segmenter is None:
            skipped |= dict.fromkeys(NAMES[kind], NO_SEGMENTER)
            continue
        texts = [captions[i] for i in index]
        values, settings = judge(kind, images[index], maps(kind, index), texts, measure, segmenter)
        settings["condition"] = kind if given else f"{kind}, not given to the model"
        for name, column in values.items():
            if np.isnan(column).all():
                skipped[name] = f"every {kind} map is empty"
            else:
                found[name] = measure.mean(_spread(column, index, len(images)), settings)
    return found, skipped


Judged = tuple[Mapping[str, np.ndarray], dict]


def judge(
    kind: str,
    images: np.ndarray,
    maps: np.ndarray,
    captions: Sequence[str] | None,
    measure: "Measure | None",
    segmenter: Segmenter | None,
) -> Judged:
    """Values by metric, float64 [n] with NaN where an image has none, and settings.

    Images and maps are uint8 [n, H, W, 3] in one order. Edges need neither network, a sketch
    `measure` (and `captions` for its CLIP score), a segmentation `segmenter`.
    """
    if kind == "canny":
        return _edges(images, maps)
    if kind == "sketch":
        return _sketch(measure, images, maps, captions)
    settings = {"segmenter": segmenter.name, "classes": "present in either map, per image"}
    return {"miou": segmenter.ious(images, maps)}, {**settings, "void": "left out"}


def _edges(images: np.ndarray, maps: np.ndarray) -> Judged:
    wanted = maps[..., 0].astype(np.float64) / 255
    values = control.edge_metrics(images, wanted)
    empty = int(np.isnan(values["edge_f1"]).sum())
    return values, {**control.EDGE_SETTINGS, "left_out_empty_maps": empty}


def _sketch(
    measure: "Measure", images: np.ndarray, maps: np.ndarray, captions: Sequence[str] | None
) -> Judged:
    drawn = measure.clip.image_features(control.sketches(images))
    values = {"sketch_similarity": control.cosine(drawn, measure.clip.image_features(maps))}
    settings = {**measure.clip.settings(), "sketch": "builtin"}
    if captions is None:
        return values, settings
    values["sketch_clip_score"] = clip_score(drawn, measure.text_features(captions))
    return values, {**settings, "prompt_prefix": measure.prompt_prefix, "weight": 2.5}


def _spread(values: np.ndarray, index: Sequence[int], n: int) -> list[float | None]:
    """The values at their places among n images; None elsewhere and for NaN."""
    found: list[float | None] = [None] * n
    for place, value in zip(index, values, strict=True):
        found[place] = None if np.isnan(value) else float(value)
    return found
