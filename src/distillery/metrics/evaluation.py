"""A model's samples on disk become its metrics.

In: samples of all training seeds, what they are compared with, the curated test records. Out:
metrics by seed, and reasons for what was skipped. Not here: the metrics themselves, their JSON
form, what is compared with what (`references`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distillery.core.errors import DistilleryError
from distillery.data.conditions.kind import BUILTIN
from distillery.data.conditions.reader import ConditionMaps, extracted_kinds
from distillery.data.loader import iter_records, load_image
from distillery.metrics.conditioned import measure_control, open_segmenter, scenes_segmenter
from distillery.metrics.measure import Measure, Measured, renamed
from distillery.metrics.reader import METRICS
from distillery.metrics.references import Comparison
from distillery.sampling.samples import decode_images, hash_order, read_samples, sample_folders


@dataclass(frozen=True)
class Records:
    """Test records in the samples' order: keys, captions and real images uint8 [n, H, W, 3].

    `kinds` says under which condition map each image was made, "" for none.
    """

    keys: list[str]
    captions: list[str]
    real: np.ndarray
    kinds: list[str]


def load_records(
    samples: Path, curated: Path, selection: Path, resolution_px: int, num_samples: int
) -> Records:
    """The real images of the first `num_samples` generated ones, in a fixed order of keys.

    The order does not depend on that of the samples, so neither do blocks of images.
    """
    first = next(iter(sample_folders(samples).values()))
    rows = sorted(read_samples(first, num_samples), key=lambda row: hash_order(row["key"]))
    wanted = {row["key"] for row in rows}
    real = {
        record.key: load_image(record.image_bytes, resolution_px)
        for record in iter_records(curated, selection, splits={"test"})
        if record.key in wanted
    }
    if lost := wanted - set(real):
        raise DistilleryError(
            f"{samples}: {len(lost)} keys are not in the test split of {selection}, first "
            f"{min(lost)}; run generate again"
        )
    keys = [row["key"] for row in rows]
    return Records(
        keys,
        [row["caption"] for row in rows],
        np.stack([real[key] for key in keys]),
        [row.get("condition") or "" for row in rows],
    )


def load_images(folder: Path, keys: Sequence[str]) -> np.ndarray:
    """Generated images uint8 [n, H, W, 3] of one seed; they must be of exactly these records."""
    rows = {row["key"]: row["image"] for row in read_samples(folder, len(keys))}
    if set(rows) != set(keys):
        raise DistilleryError(f"{folder}: made for other records; run generate again")
    return decode_images([rows[key] for key in keys])


Judge = Callable[[np.ndarray], tuple[Measured, dict[str, str]]]


def measure_samples(
    measure: Measure,
    samples: Path,
    records: Records,
    compared: Sequence[Comparison],
    judges: Sequence[Judge] = (),
) -> tuple[dict[int, Measured], dict[str, str]]:
    """{seed: metrics of its images} and what was skipped.

    `judges` measure the images alone: each gives metrics and reasons for what it leaves out.
    """
    features = measure.extractor.image_features
    references = [None if c.distribution is None else features(c.images) for c in compared]
    found, skipped = {}, {}
    for seed, folder in sample_folders(samples).items():
        images = load_images(folder, records.keys)
        own = features(images)
        found[seed] = measure.text(images, records.captions, own)
        for comparison, reference in zip(compared, references, strict=True):
            found[seed] |= _compare(measure, images, own, comparison, reference)
        for judge in judges:
            more, missing = judge(images)
            found[seed], skipped = found[seed] | more, skipped | missing
    if measure.lpips is None:
        suffixes = [c.fidelity for c in compared if c.fidelity is not None]
        skipped |= {f"lpips{suffix}": "evaluate.lpips names no network" for suffix in suffixes}
    return found, skipped


def _compare(
    measure: Measure,
    images: np.ndarray,
    own: np.ndarray,
    comparison: Comparison,
    reference: np.ndarray | None,
) -> Measured:
    """Distances of the images, with features `own`, to one set with features `reference`."""
    found: Measured = {}
    if reference is not None:
        distances = measure.distribution_of(own, reference, comparison.description)
        found |= renamed(distances, lambda name: name + comparison.distribution)
    if comparison.fidelity is not None:
        pairs = measure.fidelity(images, comparison.images, comparison.description)
        found |= renamed(pairs, lambda name: name + comparison.fidelity)
    return found


def reader_judge(measure: Measure, captions: Sequence[str], *, is_scenes: bool) -> Judge:
    """The reader's recalls, or the reason why there are none."""
    if is_scenes:
        return lambda images: measure.reader(images, captions)
    reasons = dict.fromkeys(METRICS, "the reader knows the scenes source only")
    return lambda images: ({}, reasons)


def control_judge(
    measure: Measure,
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
    everything = list(range(len(records.keys)))
    places = {
        kind: [i for i in everything if not given or records.kinds[i] == kind] for kind in own
    }
    maps = ConditionMaps(conditions, own, resolution_px)
    segmenter = scenes_segmenter() if segmentation == "scenes" else None
    if segmenter is None and segmentation != BUILTIN and "segmentation" in own:
        segmenter = open_segmenter(segmentation, str(device))

    def read(kind: str, index: Sequence[int]) -> np.ndarray:
        return maps.images(kind, [records.keys[i] for i in index])

    return lambda images: measure_control(
        measure, images, records.captions, places, read, segmenter, given=given
    )


def ceiling(measure: Measure, reconstructed: np.ndarray, captions: Sequence[str]) -> Measured:
    """What the VAE's reconstructions of real images reach, as `<metric>_ceiling`: no model of this
    VAE can be expected to do better."""
    found = measure.text(reconstructed, captions) | measure.reader(reconstructed, captions)[0]
    return renamed(found, lambda metric: f"{metric}_ceiling")
