"""What needs the models themselves: prediction distance and VAE reconstructions.

In: a teacher folder and a student folder. Out: estimates and images. Not here: metrics of images,
which prediction is compared with which (`pairings`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from distillery.core.run import Run
from distillery.data.conditions.reader import ConditionMaps
from distillery.families import family_of
from distillery.families.load import Folders, Student, load_student
from distillery.families.pairings import Pairing, pairing
from distillery.metrics.evaluation import Records
from distillery.metrics.intervals import bootstrap_mean
from distillery.metrics.meter import Measured
from distillery.metrics.prediction_distance import SETTINGS, Probe, make_probe, relative_distances
from distillery.sampling.samples import batches
from distillery.teacher.load import (
    Teacher,
    decode_latents,
    encode_images,
    load_teacher,
    load_teacher_controlnet,
)

BATCH_SIZE = 64
NAME = "prediction_distance"


@dataclass(frozen=True)
class Asking:
    """On what predictions are compared: the first records, `num_slots` noisy latents of each.

    `plan_seed` draws timesteps and noise; `resolution_px` is that of images and condition maps;
    `num_bootstrap` resamplings of the records give the interval.
    """

    num_records: int
    num_slots: int
    plan_seed: int
    num_bootstrap: int
    resolution_px: int


def distances_of(
    run: Run,
    variant: str,
    folders: Folders,
    records: Records,
    asking: Asking,
    device: torch.device,
    conditions: Path | None = None,
) -> tuple[dict[int, Measured], dict[str, str]]:
    """`prediction_distances` of a variant's seeds `folders.seeds`, or why there is none.

    `conditions` is the folder of the condition maps, which a ControlNet's variant needs.
    """
    family, kind = family_of(variant), records.kinds[0]
    wanted = family.predicts(variant.partition("/")[2]) if family else None
    if wanted is None:
        return {}, {NAME: "no teacher's prediction to compare this variant's with"}
    if wanted.has_control and (conditions is None or not kind):
        return {}, {NAME: "no condition maps are given"}
    teacher = load_teacher(folders.teacher, device, torch.float32)
    control, maps = None, None
    if wanted.has_control:
        control = load_teacher_controlnet(folders.teacher, kind, teacher.unet)
        reader = ConditionMaps(conditions, [kind], asking.resolution_px)

        def maps(keys: Sequence[str]) -> torch.Tensor:
            return reader.batch(keys)[kind]

    def load(seed: int) -> Student:
        return load_student(variant, replace(folders, seed=seed), device)

    pair = pairing(wanted, teacher, control, load, folders.guidance_scale)
    return prediction_distances(run, teacher, pair, folders.seeds, records, asking, maps), {}


def prediction_distances(
    run: Run,
    teacher: Teacher,
    pair: Pairing,
    seeds: Sequence[int],
    records: Records,
    asking: Asking,
    maps: Callable[[Sequence[str]], torch.Tensor] | None = None,
) -> dict[int, Measured]:
    """{seed: {"prediction_distance": ...}} of a student.

    `maps(keys)` are the condition maps of records, float32 [n, 3, H, W] in [0, 1].
    """
    real, captions, keys = (
        part[: asking.num_records] for part in (records.real, records.captions, records.keys)
    )
    hints = None if maps is None else maps(keys)
    probe = make_probe(teacher, real, captions, keys, asking.plan_seed, asking.num_slots, hints)
    num_rows = len(probe.noisy) * (1 + len(seeds))
    with run.progress(num_rows, unit="prediction") as bar:
        distances = _distances(probe, pair, seeds, teacher.unet.device, bar.update)
    settings = {**SETTINGS, **pair.settings, "num_slots": asking.num_slots}
    settings["interval"] = "bootstrap over records"
    return {
        seed: {NAME: (bootstrap_mean(values, asking.num_bootstrap), settings)}
        for seed, values in distances.items()
    }


def _distances(
    probe: Probe,
    pair: Pairing,
    seeds: Sequence[int],
    device: torch.device,
    on_batch: Callable[[int], object],
) -> dict[int, np.ndarray]:
    expected = probe.ask(pair.expected, on_batch, device)
    return {
        seed: relative_distances(
            probe.ask(pair.student(seed), on_batch, device), expected, probe.num_slots
        )
        for seed in seeds
    }


def reconstruct(teacher_folder: Path, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """What takes uint8 images [n, H, W, 3] through the teacher's VAE and back."""
    teacher = load_teacher(teacher_folder, device, torch.float32)

    def back_and_forth(images: np.ndarray) -> np.ndarray:
        parts = (encode_images(teacher, part) for part in batches(images, BATCH_SIZE))
        return np.concatenate([decode_latents(teacher.vae, latents) for latents in parts])

    return back_and_forth
