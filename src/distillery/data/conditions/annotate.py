"""Condition maps of the selected images, stored losslessly.

In: curated and selected rows. Out: per kind a parquet shard of (key, PNG), each map exactly as
large as its image is displayed; counts of them, and of records without one of the user's own maps.
Nothing is resized to a multiple of 64, nothing is JPEG. Not here: what a kind's map is (a file per
kind beside this one).
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from distillery.core.errors import DistilleryError
from distillery.core.shards import (
    image_type,
    iter_table_shard,
    open_table_shard,
    read_columns,
    shard_name,
    write_table_shard,
)
from distillery.data.conditions import KINDS
from distillery.data.conditions.dark import brightest_of_dark, dark_line
from distillery.data.conditions.own import LeftOut, OwnMaps, open_own
from distillery.data.images import decode_rgb
from distillery.data.loader import Selection

CONDITION_SCHEMA = pa.schema([("key", pa.string()), ("image", image_type())])
COUNTS = "counts.json"
# Level 6 would be 6% smaller on photos' sketches and take twice as long.
_PNG_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 3]

Annotator = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]


def build_annotators(
    kinds: Collection[str], settings: Mapping[str, Any], device: str = "cpu"
) -> dict[str, Annotator]:
    """Per kind a function from an image uint8 (H, W, 3) RGB and its curated row to the map.

    `settings` are those of `extract_conditions`; `kinds` may say where the user's own maps are, and
    then the function raises LeftOut for a record without one. Raises DistilleryError where a
    learned annotator or a folder of maps is missing or not supported.
    """
    own = open_own(kinds)
    return {k: _own(own[k]) if k in own else _annotator(k, settings, device) for k in kinds}


def _own(maps: OwnMaps) -> Annotator:
    return lambda image, row: maps.read(row, *image.shape[:2])


def _annotator(name: str, settings: Mapping[str, Any], device: str) -> Annotator:
    kind = KINDS[name]
    draw, takes_exact = kind.open(settings, device), kind.takes_exact(settings)

    def annotate(image: np.ndarray, row: Mapping[str, Any]) -> np.ndarray:
        exact = kind.exact(row) if takes_exact else None
        return draw(image) if exact is None else exact

    return annotate


def annotate_shard(
    shard: Path,
    targets: Mapping[str, Path],
    annotators: Mapping[str, Annotator],
    selected: Container[str],
) -> None:
    """Write the maps of one curated shard's selected rows, a file per kind in `targets`.

    A record without one of the user's own maps has no row. Raises DistilleryError where a map that
    was made is not as large as its image.
    """
    if not targets:
        return
    with contextlib.ExitStack() as stack:
        add = {
            kind: stack.enter_context(open_table_shard(target, CONDITION_SCHEMA))
            for kind, target in targets.items()
        }
        for row in (row for row in iter_table_shard(shard) if row["key"] in selected):
            image = decode_rgb(row["image"]["bytes"])
            for kind in targets:
                with contextlib.suppress(LeftOut):  # `count_maps` says why
                    add[kind](_record(row["key"], kind, image, annotators[kind](image, row)))


def count_maps(
    conditions: Path,
    kinds: Iterable[str],
    own: Mapping[str, OwnMaps],
    shards: Iterable[Path],
    selected: Selection,
) -> dict[str, dict[str, Any]]:
    """{kind: {"maps": n, "left_out": {reason: n}}} of a part, for `COUNTS`.

    `shards` are the curated ones. Of a kind with the user's own maps, `first` names the first
    record that is left out, `resized` counts the maps that were resized as asked, and `brightest`
    is a value that is there where all maps are nearly black.
    """
    counts = {}
    for kind in kinds:
        keys = [read_columns(path, ["key"])["key"] for path in _shards(conditions / kind)]
        counts[kind] = {"maps": sum(map(len, keys)), "left_out": {}}
        if kind in own:
            lost = selected.without(keys)
            counts[kind] |= _left_out(own[kind], lost, shards)
            if (brightest := brightest_of_dark(_encoded(conditions / kind))) is not None:
                counts[kind]["brightest"] = brightest
            if own[kind].resize:
                counts[kind]["resized"] = _num_resized(own[kind], selected, lost, shards)
    return counts


def _encoded(folder: Path) -> Iterable[bytes]:
    rows = (row for shard in _shards(folder) for row in iter_table_shard(shard))
    return (row["image"]["bytes"] for row in rows)


def _num_resized(
    own: OwnMaps, selected: Selection, lost: Collection[str], shards: Iterable[Path]
) -> int:
    """Reads every map once more, which is asked for where sizes differ only."""
    rows = (row for shard in shards for row in iter_table_shard(shard) if row["key"] in selected)
    kept = (row for row in rows if row["key"] not in lost)
    return sum(not own.has_size(row, row["height"], row["width"]) for row in kept)


def _left_out(own: OwnMaps, lost: Collection[str], shards: Iterable[Path]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    first = {}
    rows = (row for shard in shards for row in iter_table_shard(shard) if row["key"] in lost)
    for row in rows:
        try:
            own.read(row, row["height"], row["width"])
        except LeftOut as reason:
            reasons[reason.reason] += 1
            first = first or {"first": f"{row['key']}: {reason}"}
    return {"left_out": dict(sorted(reasons.items())), **first}


def left_out_lines(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For people: of each kind that lacks some maps how many, why, and the first of them."""
    dark = [dark_line(kind, c.get("brightest")) for kind, c in counts.items() if "brightest" in c]
    return dark + [
        f"{kind}: {c['maps']} maps, {sum(c['left_out'].values())} records are left out ("
        + ", ".join(f"{reason} {num}" for reason, num in c["left_out"].items())
        + f"), first {c['first']}"
        for kind, c in counts.items()
        if c["left_out"]
    ]


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


def write_no_maps(conditions: Path, kinds: Iterable[str]) -> None:
    """The folders of a part without images: one shard without rows for each kind."""
    for kind in kinds:
        write_table_shard(conditions / kind / shard_name(0, "parquet"), [], CONDITION_SCHEMA)


def _record(key: str, kind: str, image: np.ndarray, condition: np.ndarray) -> dict[str, Any]:
    if condition.shape[:2] != image.shape[:2]:
        raise DistilleryError(
            f"{kind} of {key} is {condition.shape[1]} x {condition.shape[0]} px, its image "
            f"{image.shape[1]} x {image.shape[0]}; the annotator or the source's labels are wrong"
        )
    num_channels = KINDS[kind].num_channels
    if condition.dtype != np.uint8 or condition.shape[2:] not in ((), (num_channels,)):
        raise DistilleryError(
            f"{kind} of {key}: {condition.dtype} {condition.shape}; an annotator gives uint8 "
            f"(H, W) or (H, W, {num_channels})"
        )
    return {"key": key, "image": {"bytes": encode_png(condition), "path": f"{key}.png"}}


def encode_png(pixels: np.ndarray) -> bytes:
    """Lossless PNG of uint8 (H, W) or (H, W, 3) RGB; three equal channels are stored as one."""
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", ordered, _PNG_SETTINGS)[1].tobytes()
