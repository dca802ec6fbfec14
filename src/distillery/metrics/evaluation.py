"""A model's samples on disk become its metrics.

In: samples of all training seeds, the teacher's samples, the curated test records. Out: metrics by
seed, and reasons for what was skipped. Not here: the metrics themselves, their JSON form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillery.artifacts import content_of
from distillery.data.loader import iter_records, load_image
from distillery.errors import DistilleryError
from distillery.metrics.measure import Measure, Measured, renamed
from distillery.samples import decode_images, read_samples, sample_folders


@dataclass(frozen=True)
class Records:
    """Test records in the samples' order: keys, captions and real images uint8 [n, H, W, 3]."""

    keys: list[str]
    captions: list[str]
    real: np.ndarray


def load_records(
    samples: Path, curated: Path, selection: Path, resolution_px: int, num_samples: int
) -> Records:
    """The real images of the first `num_samples` generated ones, in the same order."""
    first = next(iter(sample_folders(samples).values()))
    rows = read_samples(first, num_samples)
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
    return Records(keys, [row["caption"] for row in rows], np.stack([real[key] for key in keys]))


def load_images(folder: Path, keys: Sequence[str]) -> np.ndarray:
    """Generated images uint8 [n, H, W, 3] of one seed; they must be of exactly these records."""
    rows = read_samples(folder, len(keys))
    if [row["key"] for row in rows] != list(keys):
        raise DistilleryError(f"{folder}: made for other records; run generate again")
    return decode_images([row["image"] for row in rows])


def measure_samples(
    measure: Measure, samples: Path, reference: Path, records: Records, *, has_reader: bool
) -> tuple[dict[int, Measured], dict[str, str]]:
    """{seed: metrics of its images} and what was skipped; `reference` is the guided teacher's."""
    teacher_folder = next(iter(sample_folders(reference).values()))
    teacher = load_images(teacher_folder, records.keys)
    is_teacher = content_of(samples) == content_of(reference)
    found, skipped = {}, {}
    for seed, folder in sample_folders(samples).items():
        images = load_images(folder, records.keys)
        found[seed], missing = _measure_images(
            measure, images, records, None if is_teacher else teacher, has_reader
        )
        skipped |= missing
    return found, skipped


def _measure_images(
    measure: Measure,
    images: np.ndarray,
    records: Records,
    teacher: np.ndarray | None,
    has_reader: bool,
) -> tuple[Measured, dict[str, str]]:
    features = measure.extractor.image_features
    own = features(images)
    found = measure.distribution_of(own, features(records.real), "real test images")
    found |= measure.text(images, records.captions)
    skipped = {}
    if teacher is not None:
        name = "guided teacher, same prompts and noise"
        to_teacher = measure.distribution_of(own, features(teacher), name)
        found |= renamed(to_teacher, lambda metric: f"{metric}_teacher")
        found |= measure.fidelity(images, teacher, name)
    else:
        names = ("fid_teacher", "fid_extrapolated_teacher", "kid_teacher", "psnr", "ssim")
        skipped |= dict.fromkeys(names, "these are the reference images themselves")
    if has_reader:
        recalls, missing = measure.reader(images, records.captions)
        return found | recalls, skipped | missing
    from distillery.metrics.reader import METRICS

    return found, skipped | dict.fromkeys(METRICS, "the reader knows the scenes source only")


def ceiling(measure: Measure, reconstructed: np.ndarray, captions: Sequence[str]) -> Measured:
    """What the VAE's reconstructions of real images reach, as `<metric>_ceiling`: no model of this
    VAE can be expected to do better."""
    found = measure.text(reconstructed, captions) | measure.reader(reconstructed, captions)[0]
    return renamed(found, lambda metric: f"{metric}_ceiling")
