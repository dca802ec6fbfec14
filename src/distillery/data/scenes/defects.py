"""Scenes as samples of a source, with planted and labelled defects.

In: a seed, a number of scenes and a rate per defect. Out: `RawSample`s with exact segmentation,
which `ingest.raw` writes like those of any other source; the same call gives the same bytes. All
scores (`similarity`, `punsafe`, `pwatermark`, `aesthetic`) are synthetic: drawn at random, not
measured on the image. It does not check seeds (`scenes.draw.check_scene_seed`) and writes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.data.ingest.sample import RawSample
from distillery.data.scenes.defect_kinds import (
    DEFECTS,
    Sample,
    clean_sample,
    encode,
    is_duplicate,
    plant,
)


def assign_defects(num_scenes: int, seed: int, defects: Mapping[str, float]) -> list[str | None]:
    """The defect of each scene or None; the first two stay clean, as originals of duplicates.

    `defects` maps a name of `DEFECTS` to the share of scenes that carry it; a scene carries one at
    most. Raises `DistilleryError` for an unknown name, or shares outside [0, 1] in sum.
    """
    unknown = sorted(set(defects) - set(DEFECTS))
    if unknown:
        raise DistilleryError(
            f"unknown planted defect {unknown[0]!r}: choose from {', '.join(DEFECTS)}"
        )
    total = sum(defects.values())
    if min(defects.values(), default=0) < 0 or total > 1:
        raise DistilleryError(f"planted defects sum to {total:g}: shares must be within 0 and 1")
    labels: list[str | None] = [None] * num_scenes
    order = _uniforms(seed, 1, num_scenes).argsort(kind="stable")
    places = iter(order[order >= 2].tolist())
    for name, share in defects.items():
        for number in _take(places, round(share * num_scenes)):
            labels[number] = name
    return labels


def draw_samples(
    numbers: Iterable[int], labels: Sequence[str | None], *, seed: int, size_px: int
) -> Iterator[RawSample]:
    """Draw the scenes of these numbers, each with the defect that `labels` has for it.

    A planted duplicate copies an earlier clean scene, which `planted_of` names.
    """
    originals = [number for number, label in enumerate(labels) if label is None]
    for number in numbers:
        yield _as_raw(_sample(number, labels[number], originals, seed, size_px))


def _as_raw(sample: Sample) -> RawSample:
    scores = {name: round(value, 6) for name, value in sample.scores.items()}
    labels = {"planted": sample.planted, "planted_of": sample.planted_of}
    return RawSample(
        key=sample.key,
        source="scenes",
        image=sample.data,
        suffix=sample.extension,
        caption=sample.caption,
        metadata={"url": sample.url, **scores, **labels},
        segmentation=encode(Image.fromarray(sample.class_ids), "png"),
    )


def _take(places, count: int) -> list[int]:
    return [number for number, _ in zip(places, range(count), strict=False)]


def _uniforms(seed: int, stream: int, count: int) -> np.ndarray:
    bits = np.random.Philox(np.random.SeedSequence([seed, 0x5CE9E5, stream]))
    return np.random.Generator(bits).random(count)


def _sample(number: int, label: str | None, originals, seed: int, size_px: int) -> Sample:
    uniforms = _uniforms(seed, 2 + number, 16)
    if label is None:
        return clean_sample(number, seed, size_px, uniforms)
    if not is_duplicate(label):
        return plant(label, clean_sample(number, seed, size_px, uniforms), uniforms)
    earlier = [n for n in originals if n < number]
    chosen = earlier[int(uniforms[15] * len(earlier))]
    original = clean_sample(chosen, seed, size_px, _uniforms(seed, 2 + chosen, 16))
    return plant(label, original, uniforms, number=number)
