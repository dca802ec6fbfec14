"""A rule-based reader of scenes: which shapes, in which colours, on which background.

In: an RGB image and the caption that it should follow. Out: what is seen, and the recalls
`reader_colour`, `reader_shape`, `reader_pair`, `reader_background`. It takes about 2 ms at 64 px,
learns nothing and knows only the scenes' vocabulary: of other captions it says that they ask for
nothing. It does not judge textures, sizes, relations or realism.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from distillery.data.scenes.draw import gradient_end, rasterise
from distillery.data.scenes.palette import (
    BACKGROUND_COLOURS,
    CLASS_IDS,
    OBJECT_COLOURS,
    SHAPES,
    TEXTURE_SHADE,
)
from distillery.metrics.meter import CAPTIONS, SCENES, Chunk, Meter, Tools, needing

METRICS = ("reader_colour", "reader_shape", "reader_pair", "reader_background")
NO_SCENES = "the reader knows scenes only; these captions do not describe any"
WORKING_PX = 64
BORDER_PX = 2
# CIE Lab distances.
FOREGROUND_DISTANCE = 16.0
GRADIENT_RANGE = 5.0
MIN_AREA_PX = 40
TEMPLATE_PX = 32

_OBJECT = re.compile(rf"\b({'|'.join(OBJECT_COLOURS)}) ({'|'.join(SHAPES)})\b")
_BACKGROUND = re.compile(rf"\b({'|'.join(BACKGROUND_COLOURS)})( gradient)? background\b")


@dataclass(frozen=True)
class ReadObject:
    """`overlap` is the intersection over union with the best shape template."""

    shape: str
    colour: str
    box: tuple[int, int, int, int]
    overlap: float


@dataclass(frozen=True)
class Reading:
    """What was seen; `background` in the captions' words, objects from large to small."""

    objects: tuple[ReadObject, ...]
    background: str


def read_scene(image: np.ndarray) -> Reading:
    """Read a uint8 image (H, W, 3); boxes are in pixels of a 64 x 64 version of it."""
    lab = _lab(_working_size(image))
    background, masks = _find_objects(lab)
    return Reading(tuple(_read_object(lab, mask) for mask in masks), background)


def read_segmentation(image: np.ndarray) -> np.ndarray:
    """Class ids (64, 64) of what is seen, in the numbering of `palette.CLASS_IDS`."""
    lab = _lab(_working_size(image))
    ids = np.zeros(lab.shape[:2], dtype=np.uint8)
    for mask in _find_objects(lab)[1]:
        ids[mask] = CLASS_IDS[_read_object(lab, mask).shape]
    return ids


def parse_caption(caption: str) -> tuple[list[tuple[str, str]], str | None]:
    """The (colour, shape) pairs and the background that a caption asks for."""
    match = _BACKGROUND.search(caption)
    return _OBJECT.findall(caption), match and match[1] + (match[2] or "")


def recall(image: np.ndarray, caption: str) -> dict[str, float | None]:
    """Per metric the share of what the caption asks for that is seen; None if it asks for none.

    An object that is asked for twice has to be seen twice; objects that nobody asked for do not
    count against the image.
    """
    pairs, background = parse_caption(caption)
    if not pairs and background is None:
        return dict.fromkeys(METRICS)
    reading = read_scene(image)
    seen = [(item.colour, item.shape) for item in reading.objects]
    right_background = None if background is None else float(background == reading.background)
    return {
        "reader_colour": _share([c for c, _ in pairs], [c for c, _ in seen]),
        "reader_shape": _share([s for _, s in pairs], [s for _, s in seen]),
        "reader_pair": _share(pairs, seen),
        "reader_background": right_background,
    }


def _share(asked: list, seen: list) -> float | None:
    matched = Counter(asked) & Counter(seen)
    return matched.total() / len(asked) if asked else None


def _working_size(image: np.ndarray) -> np.ndarray:
    if image.shape[:2] == (WORKING_PX, WORKING_PX):
        return image
    return cv2.resize(image, (WORKING_PX, WORKING_PX), interpolation=cv2.INTER_AREA)


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(rgb, dtype=np.float32) / 255, cv2.COLOR_RGB2LAB)


@cache
def _background_segments() -> tuple[np.ndarray, np.ndarray]:
    """Lab end points (backgrounds, 3) between which a background's gradient runs."""
    starts = np.array(list(BACKGROUND_COLOURS.values()), dtype=np.float64)
    pairs = zip(BACKGROUND_COLOURS, starts, strict=True)
    ends = np.array([gradient_end(name, start) for name, start in pairs])
    return _lab(starts[None])[0], _lab(ends[None])[0]


def _segment_distances(lab: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Lab distance of each pixel (..., 3) to the line segment from start to end."""
    along = end - start
    position = np.clip(((lab - start) @ along) / (along @ along), 0, 1)
    return np.linalg.norm(lab - start - position[..., None] * along, axis=-1)


def _read_background(lab: np.ndarray) -> tuple[str, np.ndarray]:
    """The background's words, and the distance (H, W) of each pixel to its colours."""
    inner = slice(BORDER_PX, -BORDER_PX)
    frame = np.ones(lab.shape[:2], dtype=bool)
    frame[inner, inner] = False
    border = lab[frame]
    starts, ends = _background_segments()
    means = [
        np.median(_segment_distances(border, start, end))
        for start, end in zip(starts, ends, strict=True)
    ]
    best = int(np.argmin(means))
    low, high = np.percentile(border[:, 0], (10, 90))
    name = tuple(BACKGROUND_COLOURS)[best] + (" gradient" if high - low > GRADIENT_RANGE else "")
    return name, _segment_distances(lab, starts[best], ends[best])


def _find_objects(lab: np.ndarray) -> tuple[str, list[np.ndarray]]:
    """The background's words and the masks of connected objects, from large to small."""
    background, distance = _read_background(lab)
    mask = (distance > FOREGROUND_DISTANCE).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [number for number in range(1, count) if areas[number] >= MIN_AREA_PX]
    return background, [labels == number for number in sorted(kept, key=lambda n: -areas[n])]


def _read_object(lab: np.ndarray, mask: np.ndarray) -> ReadObject:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    shape, overlap = _read_shape(mask[top:bottom, left:right])
    box = (int(left), int(top), int(right), int(bottom))
    return ReadObject(shape, _read_colour(lab, mask), box, overlap)


@cache
def _object_palette() -> np.ndarray:
    colours = np.array(list(OBJECT_COLOURS.values()), dtype=np.float64)
    return _lab(np.stack([colours, colours * TEXTURE_SHADE]))


def _read_colour(lab: np.ndarray, mask: np.ndarray) -> str:
    """Vote of the inner pixels, each for the colour nearest to it as it is or in its shade."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    pixels = lab[inner] if inner.sum() >= MIN_AREA_PX // 2 else lab[mask]
    distances = np.linalg.norm(pixels[:, None, None] - _object_palette(), axis=-1)
    votes = np.bincount(distances.min(axis=1).argmin(axis=1), minlength=len(OBJECT_COLOURS))
    return tuple(OBJECT_COLOURS)[int(votes.argmax())]


def _fit_box(mask: np.ndarray) -> np.ndarray:
    """Stretch the cropped mask to a square template, so that only the outline counts."""
    size = (TEMPLATE_PX, TEMPLATE_PX)
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)


@cache
def _templates() -> np.ndarray:
    templates = []
    for shape in SHAPES:
        mask = rasterise(shape, 32.0, 32.0, 30.0, 64) >= 0.5
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        templates.append(_fit_box(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
    return np.stack(templates)


def _read_shape(mask: np.ndarray) -> tuple[str, float]:
    fitted = _fit_box(mask)
    shared = np.minimum(fitted, _templates()).sum(axis=(1, 2))
    overlaps = shared / np.maximum(fitted, _templates()).sum(axis=(1, 2))
    best = int(overlaps.argmax())
    return SHAPES[best], float(overlaps[best])


def _values(chunk: Chunk, tools: Tools) -> dict[str, np.ndarray]:
    rows = [recall(image, text) for image, text in zip(chunk.images, chunk.captions, strict=True)]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in METRICS}


READER = Meter(
    needs=dict.fromkeys(METRICS, needing(SCENES, CAPTIONS)),
    values=_values,
    settings=lambda tools, columns: {"reader": "rules"},
    empty=NO_SCENES,
)
