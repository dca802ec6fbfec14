"""Folders of images and their captions, in memory.

In: folders, a file of captions. Out: images in pairs of the same name, captions in their order; a
function applied to images of any sizes. Broken, missing and differently sized files are an error
that lists them all. Not here: metrics.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.images import UndecodableError, decode_rgb

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_LISTED = 20


def by_size(function: Callable[..., np.ndarray], *sides: Sequence[np.ndarray]) -> np.ndarray:
    """`function` of equally large images at a time; its rows in the order of the images."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(sides[0]):
        groups.setdefault(image.shape, []).append(index)
    rows: list[Any] = [None] * len(sides[0])
    for indices in groups.values():
        values = function(*(np.stack([side[i] for i in indices]) for side in sides))
        for index, value in zip(indices, values, strict=True):
            rows[index] = value
    return np.stack(rows)


def read_pairs(
    images: Path, reference: Path, on_image: Callable[[int], object] = lambda count: None
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """(names, images, reference images), uint8 [H, W, 3] each, sorted by name."""
    mine, theirs = list_images(images), list_images(reference)
    problems = [f"{images}/{name}: not in {reference}" for name in sorted(set(mine) - set(theirs))]
    problems += [f"{reference}/{name}: not in {images}" for name in sorted(set(theirs) - set(mine))]
    names, pairs = sorted(set(mine) & set(theirs)), []
    for name in names:
        pair = []
        for path in (mine[name], theirs[name]):
            try:
                pair.append(decode_rgb(path.read_bytes()))
            except (UndecodableError, OSError) as error:
                problems.append(f"{path}: broken: {error}")
            on_image(1)
        if len(pair) == 2 and pair[0].shape != pair[1].shape:
            problems.append(f"{mine[name]}: {pair[0].shape[:2]}, reference {pair[1].shape[:2]}")
        pairs.append(pair)
    _refuse(problems)
    return names, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def list_images(folder: Path) -> dict[str, Path]:
    """{name without suffix: file}; two files of one name, or none at all, are errors."""
    if not folder.is_dir():
        raise DistilleryError(f"{folder}: no folder; give one with images")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        if path.stem in found:
            raise DistilleryError(f"{path}: {found[path.stem].name} has the same name; keep one")
        found[path.stem] = path
    if not found:
        raise DistilleryError(f"{folder}: no images ({', '.join(SUFFIXES)})")
    return found


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        listed = [*problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            listed.append(f"and {len(problems) - MAX_LISTED} more")
        raise DistilleryError(
            "\n".join([*listed, f"{len(problems)} files do not pair up; mend or remove them"])
        )


def read_prompts(path: Path, names: Sequence[str]) -> list[str]:
    """Captions of the named images from a JSON object or a CSV; a missing one is an error."""
    captions = load_prompts(path)
    if lost := [name for name in names if name not in captions]:
        raise DistilleryError(f"{path}: no prompt for {lost[0]} ({len(lost)} in all)")
    return [captions[name] for name in names]


def load_prompts(path: Path) -> dict[str, str]:
    """{name without suffix: caption} of a JSON object {name: text} or a CSV file_name,text."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            rows = json.loads(text).items()
        else:
            rows = [(r["file_name"], r["text"]) for r in csv.DictReader(text.splitlines())]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DistilleryError(
            f"{path}: no prompts ({error}); give JSON {{name: text}} or CSV file_name,text"
        ) from None
    captions: dict[str, str] = {}
    for name, caption in rows:
        if captions.setdefault(Path(name).stem, caption) != caption:
            raise DistilleryError(f"{path}: {Path(name).stem} has two prompts; keep one")
    return captions
