"""The metrics of images that there are; each is a file here, and a line in `catalog` for people.

In: nothing. Out: the list that the stage `evaluate` and the command `evaluate` go through. Torch
is not imported.
"""

from collections.abc import Iterable, Mapping

from distillery.metrics.clip_score import CLIP_SCORE
from distillery.metrics.edges import EDGES
from distillery.metrics.frechet import FRECHET
from distillery.metrics.kid import KID
from distillery.metrics.lpips import LPIPS_DISTANCE
from distillery.metrics.meter import MAPS, PAIRS, Meter, SetMeter
from distillery.metrics.miou import MIOU
from distillery.metrics.psnr import PSNR
from distillery.metrics.reader import READER
from distillery.metrics.redrawn import REDRAWN
from distillery.metrics.sketch import SKETCH
from distillery.metrics.ssim import SSIM

METERS: tuple[Meter, ...] = (
    PSNR,
    SSIM,
    LPIPS_DISTANCE,
    CLIP_SCORE,
    EDGES,
    SKETCH,
    MIOU,
    *REDRAWN,
    READER,
)
SET_METERS: tuple[SetMeter, ...] = (FRECHET, KID)


def names_of(meters: Iterable[Meter | SetMeter]) -> tuple[str, ...]:
    """Of all their metrics."""
    return tuple(name for meter in meters for name in meter.names)


def of_pairs() -> list[Meter]:
    """What compares an image with another."""
    return [meter for meter in METERS if meter.needs_any({PAIRS})]


def of_group(group: str | None) -> list[Meter]:
    """What compares an image with its condition map, of a kind's group of metrics."""
    return [meter for meter in METERS if group is not None and meter.group == group]


def of_images() -> list[Meter]:
    """What judges an image with nothing beside it but its caption."""
    return [meter for meter in METERS if not meter.needs_any({PAIRS, MAPS})]


def unavailable(meters: Iterable[Meter | SetMeter], lacking: Mapping[str, str]) -> dict[str, str]:
    """{metric: reason} of those that need what is lacking, {need: reason}; the first counts."""
    reasons = {}
    for meter in meters:
        for name, needs in meter.needs.items():
            reasons |= {name: next((lacking[n] for n in lacking if n in needs), None)}
    return {name: reason for name, reason in reasons.items() if reason is not None}
