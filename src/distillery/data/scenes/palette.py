"""The vocabulary of the procedural scenes: shapes, colours, textures, class ids.

In: nothing. Out: constants that the drawer, the reader and the condition maps share.
It does not draw and does not read images.
"""

from __future__ import annotations

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("large", "small")
RELATIONS = ("left of", "right of", "above", "below")

# sRGB; every two object colours are at least 30 apart in CIE Lab (a test checks it).
OBJECT_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 38),
    "orange": (242, 120, 12),
    "yellow": (250, 222, 40),
    "green": (36, 150, 56),
    "cyan": (0, 175, 195),
    "blue": (48, 80, 220),
    "purple": (132, 48, 168),
    "pink": (236, 92, 160),
}
BACKGROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 244),
    "black": (14, 14, 14),
    "grey": (70, 70, 70),
    "beige": (232, 210, 176),
    "light blue": (172, 206, 244),
    "light green": (186, 228, 180),
}
# Canny sees luminance only: an edge of less than 50 stays below its upper threshold of 200.
MIN_CONTRAST = 50.0


def luminance(rgb: tuple[int, int, int]) -> float:
    """Rec. 601 luma of 8-bit sRGB, as `cv2.cvtColor` computes it."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _contrasting(background: tuple[int, int, int]) -> tuple[str, ...]:
    level = luminance(background)
    return tuple(
        name for name, rgb in OBJECT_COLOURS.items() if abs(luminance(rgb) - level) >= MIN_CONTRAST
    )


# The object colours that are drawn on each background.
CONTRASTING_COLOURS = {name: _contrasting(rgb) for name, rgb in BACKGROUND_COLOURS.items()}

# A texture alternates the colour with this fraction of it.
TEXTURE_SHADE = 0.5

CLASS_NAMES = ("background", *SHAPES)
CLASS_IDS = {name: number for number, name in enumerate(CLASS_NAMES)}
# Colours of the segmentation condition maps, indexed by class id.
CLASS_COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
)
