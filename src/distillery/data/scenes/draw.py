"""Procedural scenes: one or two textured shapes on a plain or gradient background.

In: a seed, an index and a size. Out: a `Scene` with image, caption, exact segmentation and the
objects' description. The same (seed, index) gives the same bytes on every machine: only uniform
numbers are drawn, and shapes are rasterised in fixed point. It does not write files.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.scenes.palette import (
    BACKGROUND_COLOURS,
    CLASS_IDS,
    CONTRASTING_COLOURS,
    OBJECT_COLOURS,
    RELATIONS,
    SHAPES,
    TEXTURE_SHADE,
)

# The shipped teacher is trained on these seeds alone; `ingest` refuses them.
TEACHER_SEEDS = range(1_000_000_000, 2_000_000_000)

SINGLE_SHARE = 0.65
GRADIENT_SHARE = 0.3
# A gradient adds up to this to the background's colour: away from the objects' luminance.
GRADIENT_STEPS = {"white": -38.0, "black": 30.0, "grey": -34.0}
LIGHT_GRADIENT_TOWARDS_WHITE = 0.6
REFERENCE_PX = 64.0
SUPERSAMPLING = 4
FIXED_POINT_BITS = 4

# Outlines in [-1, 1]^2, y downwards.
_STAR = (
    (0.0, -1.0), (0.2469, -0.2939), (0.9511, -0.309), (0.3995, 0.1703), (0.5878, 0.809),
    (0.0, 0.46), (-0.5878, 0.809), (-0.3995, 0.1703), (-0.9511, -0.309), (-0.2469, -0.2939),
)  # fmt: skip
_CROSS = (
    (-0.36, -1.0), (0.36, -1.0), (0.36, -0.36), (1.0, -0.36), (1.0, 0.36), (0.36, 0.36),
    (0.36, 1.0), (-0.36, 1.0), (-0.36, 0.36), (-1.0, 0.36), (-1.0, -0.36), (-0.36, -0.36),
)  # fmt: skip
OUTLINES = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)),
    "star": tuple((1.1 * x, 1.1 * y + 0.1) for x, y in _STAR),
    "cross": _CROSS,
}
RING_HOLE = 0.55


@dataclass(frozen=True)
class SceneObject:
    """One object; `box` is (left, top, right, bottom) in pixels, right and bottom exclusive."""

    shape: str
    colour: str
    size: str
    texture: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """`image` uint8 (H, W, 3) RGB, `segmentation` uint8 (H, W) ids of `CLASS_NAMES`.

    `background` is the caption's words, such as "white" or "light blue gradient".
    """

    image: np.ndarray
    caption: str
    segmentation: np.ndarray
    objects: tuple[SceneObject, ...]
    background: str


class _Uniforms:
    """Hands out numbers of [0, 1) in order; `Generator.random` is the only call to numpy's RNG."""

    def __init__(self, seed: int, index: int) -> None:
        bits = np.random.Philox(np.random.SeedSequence([seed, index]))
        self._values = iter(np.random.Generator(bits).random(48).tolist())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._values)

    def pick(self, options):
        return options[int(next(self._values) * len(options))]

    def happens(self, probability: float) -> bool:
        return next(self._values) < probability


def check_scene_seed(seed: int) -> None:
    """Raise `DistilleryError` for a seed that is negative or reserved for the teacher."""
    if seed < 0:
        raise DistilleryError(f"scenes seed {seed} is negative: choose 0 or more")
    if seed in TEACHER_SEEDS:
        raise DistilleryError(
            f"scenes seed {seed} is reserved for the shipped teacher's training "
            f"({TEACHER_SEEDS.start} to {TEACHER_SEEDS.stop - 1}): choose another seed"
        )


def draw_scene(seed: int, index: int, size_px: int = 64) -> Scene:
    """Draw scene `index` of `seed` at `size_px` x `size_px`; takes about 0.5 ms at 64 px."""
    draw = _Uniforms(seed, index)
    canvas, ground, background = _draw_background(draw, size_px)
    colours = CONTRASTING_COLOURS[ground]
    segmentation = np.zeros((size_px, size_px), dtype=np.uint8)
    relation = None if draw.happens(SINGLE_SHARE) else draw.pick(RELATIONS)
    objects = []
    for centre, size, diameter in _layout(draw, relation):
        item, alpha, colour = _draw_object(draw, colours, centre, size, diameter, size_px)
        canvas += alpha[:, :, None] * (colour - canvas)
        segmentation[alpha >= 0.5] = CLASS_IDS[item.shape]
        objects.append(item)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    caption = _caption(draw, objects, relation, background)
    return Scene(image, caption, segmentation, tuple(objects), background)


def gradient_end(background: str, start: np.ndarray) -> np.ndarray:
    """The sRGB colour (3,) at which a gradient ends that starts at (a shade of) a background."""
    if background in GRADIENT_STEPS:
        return start + GRADIENT_STEPS[background]
    return start + (255 - start) * LIGHT_GRADIENT_TOWARDS_WHITE


def _draw_background(draw: _Uniforms, size_px: int) -> tuple[np.ndarray, str, str]:
    name = draw.pick(tuple(BACKGROUND_COLOURS))
    colour = np.clip(np.array(BACKGROUND_COLOURS[name]) + draw.between(-4, 4), 0, 255)
    gradient, axis, sign = draw.happens(GRADIENT_SHARE), draw.pick((0, 1)), draw.pick((-1, 1))
    if not gradient:
        return np.broadcast_to(colour, (size_px, size_px, 3)).copy(), name, name
    ramp = np.linspace(0, 1, size_px)[::sign, None]
    steps = colour + ramp * (gradient_end(name, colour) - colour)
    shape = (size_px, 1, 3) if axis == 0 else (1, size_px, 3)
    canvas = np.broadcast_to(steps.reshape(shape), (size_px, size_px, 3)).copy()
    return canvas, name, f"{name} gradient"


def _layout(draw: _Uniforms, relation: str | None):
    """Per object: centre (x, y), size word and diameter, in units of a 64 px image."""
    if relation is None:
        if draw.happens(0.7):
            centre = (draw.between(28, 36), draw.between(28, 36))
            return [(centre, "large", draw.between(38, 44))]
        centre = (draw.between(25, 39), draw.between(25, 39))
        return [(centre, "small", draw.between(23, 27))]
    near, far = draw.between(16, 18), draw.between(46, 48)
    first, second = (near, far) if relation in ("left of", "above") else (far, near)
    slots = []
    for along in (first, second):
        across = draw.between(28, 36)
        centre = (along, across) if relation in ("left of", "right of") else (across, along)
        large = draw.happens(0.7)
        diameter = draw.between(26, 29) if large else draw.between(19, 22)
        slots.append((centre, "large" if large else "small", diameter))
    return slots


def _draw_object(draw, colours, centre, size, diameter, size_px):
    scale = size_px / REFERENCE_PX
    shape, colour = draw.pick(SHAPES), draw.pick(colours)
    texture = draw.pick(("solid", "solid", "solid", "solid", "striped", "dotted"))
    x, y, radius = (value * scale for value in (*centre, diameter / 2))
    alpha = rasterise(shape, x, y, radius, size_px)
    rgb = np.clip(np.array(OBJECT_COLOURS[colour]) * draw.between(0.95, 1.03), 0, 255)
    weight = _texture(texture, x, y, scale, size_px, vertical=draw.happens(0.5))
    painted = rgb * (1 - (1 - TEXTURE_SHADE) * weight[:, :, None])
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return SceneObject(shape, colour, size, texture, box), alpha, painted


def rasterise(shape: str, x: float, y: float, radius: float, size_px: int) -> np.ndarray:
    """Coverage of each pixel in [0, 1]: filled 4x larger in fixed point, then area-averaged."""
    mask = np.zeros((size_px * SUPERSAMPLING,) * 2, dtype=np.uint8)
    unit = SUPERSAMPLING * 2**FIXED_POINT_BITS

    def fixed(value: float) -> int:
        return int(np.floor(value * unit + 0.5))

    if shape in OUTLINES:
        points = [(fixed(x + radius * u), fixed(y + radius * v)) for u, v in OUTLINES[shape]]
        cv2.fillPoly(mask, [np.array(points, dtype=np.int32)], 255, shift=FIXED_POINT_BITS)
    else:
        centre = (fixed(x), fixed(y))
        cv2.circle(mask, centre, fixed(radius), 255, -1, shift=FIXED_POINT_BITS)
        if shape == "ring":
            cv2.circle(mask, centre, fixed(RING_HOLE * radius), 0, -1, shift=FIXED_POINT_BITS)
    rows = mask.reshape(size_px, SUPERSAMPLING, -1).sum(axis=1, dtype=np.uint16)
    tiles = rows.reshape(size_px, size_px, SUPERSAMPLING).sum(axis=2, dtype=np.uint16)
    return tiles / (255.0 * SUPERSAMPLING**2)


def _texture(texture: str, x: float, y: float, scale: float, size_px: int, *, vertical: bool):
    """Weight of the darker shade per pixel: stripes or dots of period 8 px at 64 px."""
    if texture == "solid":
        return np.zeros((size_px, size_px))
    columns = (np.arange(size_px) + 0.5 - x) / scale
    rows = (np.arange(size_px) + 0.5 - y) / scale
    if texture == "striped":
        along = columns[None, :] if vertical else rows[:, None]
        distance = np.abs(np.mod(along, 8.0) - 4.0)
        weight = np.clip((1.75 - distance) * scale + 0.5, 0, 1)
        return np.broadcast_to(weight, (size_px, size_px))
    dx, dy = np.mod(columns, 8.0) - 4.0, np.mod(rows, 8.0) - 4.0
    distance = np.sqrt(dx[None, :] ** 2 + dy[:, None] ** 2)
    return np.clip((2.2 - distance) * scale + 0.5, 0, 1)


def _caption(draw: _Uniforms, objects, relation: str | None, background: str) -> str:
    named = []
    for item in objects:
        texture = "" if item.texture == "solid" else f"{item.texture} "
        named.append(f"{item.size} {texture}{item.colour} {item.shape}")
    style = draw.between(0, 1)
    if style < 0.1:
        things = f" {relation} a ".join(named)
        return f"{things}, {background} background"
    lead = "a picture of a " if style < 0.25 else "a "
    return lead + f" {relation} a ".join(named) + f" on a {background} background"
