"""A model's samples on disk become its metrics.

In: samples of all training seeds, what they are compared with, the curated test records. Out:
metrics by seed, and reasons for what was skipped. Images are read a few at a time. Not here: the
metrics themselves, condition maps (`controlled`), their JSON form, what is compared with what.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.loader import iter_records, load_image
from distillery.data.pictures import Pictures, Spool, slices
from distillery.metrics import meters
from distillery.metrics.meter import LPIPS, SCENES, Chunk, Measured, Tools
from distillery.metrics.stream import CHUNK, Pass, renamed, set_estimates
from distillery.sampling.samples import decode_png, hash_order, iter_samples, sample_folders

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
    """Generated images of one seed in this order; others that are there are passed over."""
    wanted, spool = set(keys), Spool()
    for row in iter_samples(folder):
        if row["key"] in wanted:
            spool.put(row["key"], row["image"])
    if spool.keys() != wanted:
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


def ceiling(tools: Tools, reconstructed: Pictures, captions: Sequence[str]) -> Measured:
    """What the VAE's reconstructions of real images reach, as `<metric>_ceiling`: no model of this
    VAE can be expected to do better."""
    run = Pass(len(reconstructed), meters.of_images(), tools)
    measured, _ = run.run(_chunks(reconstructed, captions, {})).means()
    return renamed(measured, "_ceiling")
