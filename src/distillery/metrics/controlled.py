"""A model's images judged on condition maps, kind by kind.

In: images of test records, the maps that `extract_conditions` wrote, its settings. Out: metrics,
and reasons for what can't be had. A kind's group says which metrics (`data.conditions`). Not here:
the metrics themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.conditions.kind import BUILTIN
from distillery.data.conditions.reader import ConditionMaps, extracted_kinds
from distillery.data.pictures import Pictures, slices
from distillery.metrics import meters
from distillery.metrics.evaluation import Judge, Records
from distillery.metrics.meter import SEGMENTER, Chunk, Measured, Tools
from distillery.metrics.miou import open_segmenter, scenes_segmenter
from distillery.metrics.redrawn import drawer_of, need_of, no_drawer
from distillery.metrics.stream import CHUNK, Pass

# Kinds of which something is said even where nobody made their maps.
ALWAYS = ("canny", "sketch", "segmentation")
NO_SEGMENTER = (
    "no segmenter: set extract_conditions.segmentation to a local folder of one, so that images "
    "and maps are labelled alike"
)


def control_judge(
    tools: Tools,
    records: Records,
    conditions: Path,
    resolution_px: int,
    settings: Mapping[str, Any],
    device: torch.device | str,
) -> Judge:
    """Every kind's metrics of the images that were made under a condition map of it.

    Images of a model that takes none are judged on every map there is: what control is compared
    with. `conditions` is the folder of all parts, `settings` are those of `extract_conditions`,
    where a kind may be drawn by `scenes`, the reader; the segmentation `builtin` has no classes,
    so no mIoU. A record without a map of a kind is not judged on it.
    """
    given = any(records.kinds)
    own = sorted(set(records.kinds) - {""}) if given else extracted_kinds(conditions)
    everything = range(len(records.keys))
    maps = ConditionMaps(conditions, own, resolution_px)
    places = {
        kind: [
            i for i in everything
            if (not given or records.kinds[i] == kind) and maps.has(kind, records.keys[i])
        ]
        for kind in own
    }  # fmt: skip
    segmentation = settings["segmentation"]
    segmenter = scenes_segmenter() if segmentation == "scenes" else None
    if segmenter is None and segmentation != BUILTIN and _labelled(own):
        segmenter = open_segmenter(segmentation, str(device))
    found = {kind: drawer_of(KINDS[kind], settings, str(device)) for kind in own if _redraws(kind)}
    drawers = {kind: draw for kind, draw in found.items() if draw is not None}
    drawn_by = {kind: settings.get(kind, BUILTIN) for kind in drawers}
    judging = replace(tools, segmenter=segmenter, drawers=drawers, drawn_by=drawn_by)
    return lambda images: measure_control(judging, images, records, places, maps, given=given)


def _labelled(kinds: Sequence[str]) -> bool:
    return any(m.needs_any({SEGMENTER}) for k in kinds for m in meters.of_group(_group(k)))


def _redraws(kind: str) -> bool:
    return any(m.needs_any({need_of(kind)}) for m in meters.of_group(_group(kind)))


def _group(kind: str) -> str | None:
    if kind not in KINDS:
        raise DistilleryError(f"condition {kind!r}: not one of {', '.join(KINDS)}")
    return KINDS[kind].group


def measure_control(
    tools: Tools,
    images: Pictures,
    records: Records,
    places: Mapping[str, Sequence[int]],
    maps: ConditionMaps,
    *,
    given: bool = True,
) -> tuple[Measured, dict[str, str]]:
    """Metrics of the images that have a map, and {name: reason} of what could not be measured.

    `places` says by kind which images are judged on its maps. `per_image` of every estimate has a
    place for all images, None for those that are not judged on this kind. Not `given`: the images
    were made without the maps.
    """
    measured: Measured = {}
    skipped: dict[str, str] = {}
    lacking = {SEGMENTER: NO_SEGMENTER} if tools.segmenter is None else {}
    lacking |= {need_of(kind): no_drawer(kind) for kind in KINDS if kind not in tools.drawers}
    said = [kind for kind in KINDS if kind in places or kind in ALWAYS]
    for kind in [*said, *sorted(set(places) - set(KINDS))]:
        able, index = meters.of_group(_group(kind)), places.get(kind, [])
        if not len(index):
            reason = f"no image is judged on a {kind} map"
            skipped |= dict.fromkeys(meters.names_of(able), reason)
            continue
        skipped |= meters.unavailable(able, lacking)
        run = Pass(len(images), [m for m in able if not m.needs_any(lacking)], tools)
        run.run(_with_maps(kind, images, records, index, maps))
        condition = {"condition": kind if given else f"{kind}, not given to the model"}
        means, empty = run.means(condition, index)
        measured |= means
        skipped |= {name: reason.format(kind=kind) for name, reason in empty.items()}
    return measured, skipped


def _with_maps(
    kind: str, images: Pictures, records: Records, index: Sequence[int], maps: ConditionMaps
) -> Iterator[Chunk]:
    for part in slices(len(index), CHUNK):
        places = list(index[part])
        captions = [records.captions[i] for i in places]
        drawn = maps.images(kind, [records.keys[i] for i in places])
        yield Chunk(places, images[places], captions, maps=drawn)
