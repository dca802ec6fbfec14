"""A model's images judged on condition maps, kind by kind.

In: images of test records, the maps that `extract_conditions` wrote. Out: metrics, and reasons for
what can't be had. A kind's group says which metrics (`data.conditions`). Not here: the metrics
themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
from distillery.metrics.stream import CHUNK, Pass

NO_SEGMENTER = (
    "no segmenter: set extract_conditions.segmentation to a local folder of one, so that images "
    "and maps are labelled alike"
)


def control_judge(
    tools: Tools,
    records: Records,
    conditions: Path,
    resolution_px: int,
    segmentation: str,
    device: torch.device | str,
) -> Judge:
    """Edges, sketch and mIoU of the images that were made under a condition map.

    Images of a model that takes none are judged on every map there is: what control is compared
    with. `conditions` is the folder of all parts; `segmentation` is `scenes` (the reader),
    `builtin` (no classes, so no mIoU) or the folder of a learned segmenter.
    """
    given = any(records.kinds)
    own = sorted(set(records.kinds) - {""}) if given else extracted_kinds(conditions)
    everything = range(len(records.keys))
    places = {
        kind: [i for i in everything if not given or records.kinds[i] == kind] for kind in own
    }
    maps = ConditionMaps(conditions, own, resolution_px)
    segmenter = scenes_segmenter() if segmentation == "scenes" else None
    if segmenter is None and segmentation != BUILTIN and _labelled(own):
        segmenter = open_segmenter(segmentation, str(device))
    judging = replace(tools, segmenter=segmenter)
    return lambda images: measure_control(judging, images, records, places, maps, given=given)


def _labelled(kinds: Sequence[str]) -> bool:
    return any(m.needs_any({SEGMENTER}) for k in kinds for m in meters.of_group(_group(k)))


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
    for kind in [*KINDS, *sorted(set(places) - set(KINDS))]:
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
