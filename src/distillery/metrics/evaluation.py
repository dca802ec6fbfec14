"""A model's samples on disk become its metrics.

In: samples of all training seeds, what they are compared with, the curated test records. Out:
metrics by seed, and reasons for what was skipped. Images are read a few at a time. Not here: the
metrics themselves, their JSON form, what is compared with what.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.conditions.kind import BUILTIN
from distillery.data.conditions.reader import ConditionMaps, extracted_kinds
from distillery.data.loader import iter_records, load_image
from distillery.data.pictures import Pictures, Spool, slices
from distillery.metrics import meters
from distillery.metrics.meter import LPIPS, SCENES, SEGMENTER, Chunk, Measured, Tools
from distillery.metrics.miou import open_segmenter, scenes_segmenter
from distillery.metrics.stream import CHUNK, Pass, renamed, set_estimates
from distillery.sampling.samples import decode_png, hash_order, iter_samples, sample_folders

NO_SEGMENTER = (
    "no segmenter: set extract_conditions.segmentation to a local folder of one, so that images "
    "and maps are labelled alike"
)
NO_LPIPS = "evaluate.lpips names no network"
NOT_SCENES = "the reader knows the scenes source only"


@dataclass(frozen=True)
class Records:
    """Test records in the samples' order: keys, captions and real images.

    `kinds` says under which condition map each image was made, "" for none.
    """

    keys: list[str]
    captions: list[str]
    real: Pictures
    kinds: list[str]


def load_records(
    samples: Path, curated: Path, selection: Path, resolution_px: int, num_samples: int
) -> Records:
    """The real images of the first `num_samples` generated ones, in a fixed order of keys.

    The order does not depend on that of the samples, so neither do blocks of images.
    """
    first = next(iter(sample_folders(samples).values()))
    about = [(r["key"], r["caption"], r.get("condition")) for r in iter_samples(first, num_samples)]
    about.sort(key=lambda row: hash_order(row[0]))
    wanted, spool = {key for key, *_ in about}, Spool()
    for record in iter_records(curated, selection, splits={"test"}):
        if record.key in wanted:
            spool.put(record.key, record.image_bytes)
    if lost := wanted - spool.keys():
        raise DistilleryError(
            f"{samples}: {len(lost)} keys are not in the test split of {selection}, first "
            f"{min(lost)}; run generate again"
        )
    keys = [key for key, *_ in about]
    real = Pictures(spool, keys, partial(load_image, resolution_px=resolution_px))
    return Records(keys, [row[1] for row in about], real, [row[2] or "" for row in about])


def load_images(folder: Path, keys: Sequence[str]) -> Pictures:
    """Generated images of one seed in this order; they must be of exactly these records."""
    spool = Spool()
    for row in iter_samples(folder, len(keys)):
        spool.put(row["key"], row["image"])
    if spool.keys() != set(keys):
        raise DistilleryError(f"{folder}: made for other records; run generate again")
    return Pictures(spool, keys, decode_png)


@dataclass(frozen=True)
class Comparison:
    """Images of the same records, and the suffixes of what is measured.

    None where this kind of metric is not measured.
    """

    description: str
    images: Pictures
    distribution: str | None
    fidelity: str | None


Judge = Callable[[Pictures], tuple[Measured, dict[str, str]]]


def measure_samples(
    tools: Tools,
    samples: Path,
    records: Records,
    compared: Sequence[Comparison],
    judges: Sequence[Judge] = (),
    *,
    is_scenes: bool = False,
) -> tuple[dict[int, Measured], dict[str, str]]:
    """{seed: metrics of its images} and what was skipped.

    `judges` measure the images alone: each gives metrics and reasons for what it leaves out.
    """
    features = [None if c.distribution is None else _features(tools, c.images) for c in compared]
    by_seed, skipped = {}, _lacking(tools, compared, is_scenes)
    for seed, folder in sample_folders(samples).items():
        images = load_images(folder, records.keys)
        by_seed[seed], missing = _measure_set(tools, images, records, compared, features, is_scenes)
        skipped |= missing
        for judge in judges:
            more, missing = judge(images)
            by_seed[seed], skipped = by_seed[seed] | more, skipped | missing
    return by_seed, skipped


def _features(tools: Tools, images: Pictures) -> np.ndarray:
    """float64 [n, d]; the extractor slices the images into its batches."""
    return tools.extractor.image_features(images)


def _lacking(tools: Tools, compared: Sequence[Comparison], is_scenes: bool) -> dict[str, str]:
    """{metric: reason} of what no image can be measured by."""
    pairs = {} if tools.lpips is not None else {LPIPS: NO_LPIPS}
    suffixes = [c.fidelity for c in compared if c.fidelity is not None]
    missing = meters.unavailable(meters.of_pairs(), pairs)
    skipped = {name + suffix: reason for name, reason in missing.items() for suffix in suffixes}
    alone = {} if is_scenes else {SCENES: NOT_SCENES}
    return skipped | meters.unavailable(meters.of_images(), alone)


def _measure_set(
    tools: Tools,
    images: Pictures,
    records: Records,
    compared: Sequence[Comparison],
    features: Sequence[np.ndarray | None],
    is_scenes: bool,
) -> tuple[Measured, dict[str, str]]:
    """All metrics of one seed's images but those of condition maps; reasons for empty ones."""
    pairs = {c.fidelity: c for c in compared if c.fidelity is not None}
    lacking = {LPIPS} if tools.lpips is None else set()
    lacking |= set() if is_scenes else {SCENES}
    able = [m for m in (*meters.of_images(), *meters.of_pairs()) if not m.needs_any(lacking)]
    named = {suffix: {"reference": c.description} for suffix, c in pairs.items()}
    others = {suffix: c.images for suffix, c in pairs.items()}
    run = Pass(len(images), able, tools, named, keeps_features=any(f is not None for f in features))
    run.run(_chunks(images, records.captions, others))
    measured, empty = run.means()
    for comparison, reference in zip(compared, features, strict=True):
        if reference is not None:
            distances = set_estimates(
                meters.SET_METERS, run.features, reference, tools, comparison.description
            )
            measured |= renamed(distances, comparison.distribution)
    return measured, empty


def _chunks(
    images: Pictures, captions: Sequence[str], others: Mapping[str, Pictures]
) -> Iterator[Chunk]:
    for part in slices(len(images), CHUNK):
        references = {suffix: other[part] for suffix, other in others.items()}
        yield Chunk(range(part.start, part.stop), images[part], captions[part], references)


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


def ceiling(tools: Tools, reconstructed: Pictures, captions: Sequence[str]) -> Measured:
    """What the VAE's reconstructions of real images reach, as `<metric>_ceiling`: no model of this
    VAE can be expected to do better."""
    run = Pass(len(reconstructed), meters.of_images(), tools)
    measured, _ = run.run(_chunks(reconstructed, captions, {})).means()
    return renamed(measured, "_ceiling")
