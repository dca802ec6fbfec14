"""Metrics of images that were made under condition maps.

In: generated images, each with the kind of its map ("" for none), and the maps. Out: per kind its
metrics over the images of that kind, and reasons for what can't be had. Edges are judged on canny
images, the sketch on sketch images, mIoU on segmentation images. Not here: the values of one image
(`control`), reading maps from disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from distillery.data.condition_maps import segmentation_ids
from distillery.errors import DistilleryError
from distillery.metrics import control
from distillery.metrics.measure import Measure, Measured
from distillery.metrics.reader import read_segmentation
from distillery.metrics.text import clip_score

KINDS = ("canny", "sketch", "segmentation")
NAMES = {
    "canny": control.EDGE_METRICS,
    "sketch": ("sketch_clip_score", "sketch_similarity"),
    "segmentation": ("miou",),
}
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


def learned_segmenter(name: str, segment: Callable[[np.ndarray], np.ndarray]) -> Segmenter:
    """A segmenter that colours classes as the maps do; PASCAL VOC's void colour is left out."""

    def ious(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
        seen = control.label_colours(control.segment_all(segment, images))
        return control.mean_iou(seen, control.label_colours(maps), control.VOID_COLOUR)

    return Segmenter(name, ious)


def measure_control(
    measure: Measure,
    images: np.ndarray,
    captions: Sequence[str],
    kinds: Sequence[str],
    maps: Callable[[str, Sequence[int]], np.ndarray],
    segmenter: Segmenter | None,
) -> tuple[Measured, dict[str, str]]:
    """Metrics of the images that have a map, and {name: reason} of what could not be measured.

    `maps(kind, indices)` are the condition maps uint8 [k, H, W, 3] of these images. `per_image`
    of every estimate has a place for all images, None for those of another kind.
    """
    if unknown := set(kinds) - {"", *KINDS}:
        raise DistilleryError(f"condition {min(unknown)!r}: not one of {', '.join(KINDS)}")
    found: Measured = {}
    skipped: dict[str, str] = {}
    judges = {"canny": _edges, "sketch": _sketch, "segmentation": partial(_labels, segmenter)}
    for kind, judge in judges.items():
        index = [i for i, own in enumerate(kinds) if own == kind]
        if not index:
            skipped |= dict.fromkeys(NAMES[kind], f"no image was made under a {kind} map")
            continue
        if kind == "segmentation" and segmenter is None:
            skipped |= dict.fromkeys(NAMES[kind], NO_SEGMENTER)
            continue
        texts = [captions[i] for i in index]
        values, settings = judge(measure, images[index], maps(kind, index), texts)
        for name, column in values.items():
            spread = _spread(column, index, len(images))
            if any(value is not None for value in spread):
                found[name] = measure.mean(spread, {**settings, "condition": kind})
            else:
                skipped[name] = f"every {kind} map is empty"
    return found, skipped


Judged = tuple[Mapping[str, np.ndarray], dict]


def _edges(measure: Measure, images: np.ndarray, maps: np.ndarray, captions: list[str]) -> Judged:
    wanted = maps[..., 0].astype(np.float64) / 255
    empty = int((wanted.reshape(len(wanted), -1).max(axis=1) == 0).sum())
    values = control.edge_metrics(images, wanted)
    return values, {**control.EDGE_SETTINGS, "left_out_empty_maps": empty}


def _sketch(measure: Measure, images: np.ndarray, maps: np.ndarray, captions: list[str]) -> Judged:
    drawn = measure.clip.image_features(control.sketches(images))
    values = {
        "sketch_clip_score": clip_score(drawn, measure.text_features(captions)),
        "sketch_similarity": control.cosine(drawn, measure.clip.image_features(maps)),
    }
    settings = {"sketch": "builtin", "prompt_prefix": measure.prompt_prefix, "weight": 2.5}
    return values, {**measure.clip.settings(), **settings}


def _labels(
    segmenter: Segmenter, measure: Measure, images: np.ndarray, maps: np.ndarray, captions: list
) -> Judged:
    settings = {"segmenter": segmenter.name, "classes": "present in either map, per image"}
    return {"miou": segmenter.ious(images, maps)}, {**settings, "void": "left out"}


def _spread(values: np.ndarray, index: Sequence[int], n: int) -> list[float | None]:
    """The values at their places among n images; None elsewhere and for NaN."""
    found: list[float | None] = [None] * n
    for place, value in zip(index, values, strict=True):
        found[place] = None if np.isnan(value) else float(value)
    return found
