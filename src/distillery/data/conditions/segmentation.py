"""Segmentations: a colour per class, exact where the source has it.

Elsewhere by a learned segmenter, or, built in, the image in a few fixed colours, which know no
classes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.core.errors import DistilleryError
from distillery.data.conditions.kind import BUILTIN, ConditionKind

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.conditions.kind import Draw


def segmentation_map(class_ids: np.ndarray) -> np.ndarray:
    """Colours uint8 (H, W, 3) of class ids (H, W) by `scenes.palette.CLASS_COLOURS`.

    Raises `IndexError` for an id outside of the palette.
    """
    import numpy as np

    from distillery.data.scenes.palette import CLASS_COLOURS

    return np.asarray(CLASS_COLOURS, dtype=np.uint8)[class_ids]


def segmentation_ids(colour_map: np.ndarray) -> np.ndarray:
    """The class ids (H, W) of a colour map (H, W, 3): per pixel the nearest palette colour."""
    import numpy as np

    from distillery.data.scenes.palette import CLASS_COLOURS

    palette = np.asarray(CLASS_COLOURS, dtype=np.int32)
    distance = ((colour_map[:, :, None].astype(np.int32) - palette) ** 2).sum(axis=-1)
    return distance.argmin(axis=-1).astype(np.uint8)


def _draw(image: np.ndarray) -> np.ndarray:
    from distillery.data.conditions.quantise import quantise_colours

    return quantise_colours(image)


def _open(settings: Mapping[str, Any], device: str) -> Draw:
    if settings["segmentation"] == BUILTIN:
        return _draw
    from distillery.data.conditions.learned import load_segmenter

    return load_segmenter(Path(settings["segmentation"]), device)


def _exact(row: Mapping[str, Any]) -> np.ndarray | None:
    """The source's labels in the colours of their classes; a colour image is taken as it is."""
    import numpy as np
    from PIL import Image

    from distillery.data.scenes.palette import CLASS_NAMES

    if not row["segmentation"]:
        return None
    labels = Image.open(io.BytesIO(row["segmentation"]))
    if labels.mode != "L":
        return np.asarray(labels.convert("RGB"))
    try:
        return segmentation_map(np.asarray(labels))
    except IndexError:
        raise DistilleryError(
            f"segmentation of {row['key']} has class {np.max(labels)}, known are "
            f"{len(CLASS_NAMES)} classes; give colours (RGB) instead of ids"
        ) from None


SEGMENTATION = ConditionKind(
    name="segmentation",
    words="Segmentation",
    form="pixels of PASCAL VOC's void colour are left out",
    draw=_draw,
    group="labels",
    open_drawer=_open,
    exact=_exact,
    of_labels=segmentation_map,
)
