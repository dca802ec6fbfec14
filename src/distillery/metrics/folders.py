"""Compare any two folders of images: the stand-alone tool behind `distillery evaluate`.

In: a folder of images, a reference folder with files of the same names, a list of metrics. Out: the
metrics contract. PSNR and SSIM are always there; FID, KID, CLIP score and LPIPS where a network for
them is named; edges, sketch or mIoU where condition maps are. Images are read once, a few at a
time. Broken, missing and differently sized files are an error that lists them all: no image is ever
dropped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core.artifacts import hash_files, hash_json
from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.image_folders import MAPS, Matched, read_prompts
from distillery.metrics import meters
from distillery.metrics.given import ALWAYS, NAMES, OFFERED, Given, named
from distillery.metrics.intervals import metrics_file
from distillery.metrics.meter import CAPTIONS, CLIP, LPIPS, SEGMENTER, Chunk, Measured, Tools
from distillery.metrics.redrawn import need_of
from distillery.metrics.stream import CHUNK, Pass, set_estimates

MIN_IMAGES = 4


def evaluate_folders(
    images: Path,
    reference: Path,
    given: Given | None = None,
    *,
    metrics: Sequence[str] | None = None,
    num_bootstrap: int = 1000,
    num_blocks: int = 16,
    on_image: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """The metrics contract for `images` against `reference`, matched by file name without suffix.

    `metrics` are what must be measured (PSNR and SSIM are anyway); None: whatever can be had, the
    rest under `skipped`. Prompts are a JSON object or a CSV with the columns `file_name` and
    `text`. Condition maps have the names and sizes of the images. The sketch also needs the
    extractor; a segmentation needs a segmenter, whose colours the maps must have. `on_image` hears
    of every file read.

    Raises DistilleryError for unmatched, broken or differently sized files, for an unknown metric,
    and for a named one that can't be had.
    """
    given = given or Given()
    wanted, reasons = set(metrics or ()), given.reasons()
    _check_names(wanted, reasons)
    folders = {"reference": reference}
    if given.conditions is not None:
        folders[MAPS] = given.conditions
    matched = Matched(images, folders, on_image)
    captions = read_prompts(given.prompts, matched.names) if given.prompts else None
    tools, lacking = given.tools(num_bootstrap, num_blocks)
    reasons |= named(meters.unavailable((*OFFERED, *meters.SET_METERS), lacking))
    _check_names(wanted, reasons)
    measured, empty = _measure(matched, tools, captions, given)
    reasons |= empty
    _check_names(wanted, reasons)
    asked = {n: v for n, v in measured.items() if not wanted or n in {*ALWAYS, *wanted}}
    fingerprints = {
        "images": hash_json(hash_files(images)),
        "reference": hash_json(hash_files(reference)),
    }
    return metrics_file({0: asked}, reasons, fingerprints, matched.names)


def _check_names(wanted: set[str], reasons: Mapping[str, str]) -> None:
    """Raises DistilleryError for a metric that is unknown or can't be had."""
    if unknown := sorted(wanted - set(NAMES)):
        raise DistilleryError(f"--metrics {unknown[0]}: unknown; one of {', '.join(NAMES)}")
    for name in sorted(wanted & set(reasons)):
        raise DistilleryError(f"--metrics {name}: {reasons[name]}")


def _measure(
    matched: Matched, tools: Tools, captions: Sequence[str] | None, given: Given
) -> tuple[Measured, dict[str, str]]:
    """All metrics that can be had, in one pass over the files, and why others can't after all."""
    group = KINDS[given.condition_kind].group if given.conditions is not None else None
    lacking = {n for n, tool in _tools_by_need(tools, captions).items() if tool is None}
    lacking |= {need_of(kind) for kind in KINDS if kind not in tools.drawers}
    able = [m for m in OFFERED if m.group in (None, group) and not m.all_need_any(lacking)]
    num_images, has_features = len(matched.names), tools.extractor is not None
    own = Pass(num_images, able, tools, {"": {}}, keeps_features=has_features)
    other = Pass(num_images, [], tools, keeps_features=has_features)
    for chunk in _chunks(matched, captions):
        own.take(chunk)
        other.take(replace(chunk, images=chunk.references[""], kept={}))
    condition = {} if group is None else {"condition": given.condition_kind}
    measured, empty = own.means(condition)
    if empty:
        form = KINDS[given.condition_kind].form
        raise DistilleryError(f"{given.conditions}: every map is empty; {form}")
    few: dict[str, str] = {}
    if has_features:
        measured |= _distances(own.features, other.features, tools, few)
    return {name: value for name, value in measured.items() if name in NAMES}, named(few)


def _distances(own: np.ndarray, other: np.ndarray, tools: Tools, few: dict[str, str]) -> Measured:
    """FID, KID; why one can't be had of so few images goes to `few`."""
    measured: Measured = {}
    if len(own) < MIN_IMAGES:
        reason = f"{len(own)} images are too few for a distance of sets; give at least {MIN_IMAGES}"
        few |= dict.fromkeys(meters.names_of(meters.SET_METERS), reason)
        return measured
    for meter in meters.SET_METERS:
        try:
            measured |= set_estimates([meter], own, other, tools, "the reference folder")
        except DistilleryError as error:
            few |= dict.fromkeys(meter.names, str(error))
    return measured


def _tools_by_need(tools: Tools, captions: Sequence[str] | None) -> dict[str, object]:
    return {LPIPS: tools.lpips, SEGMENTER: tools.segmenter, CLIP: tools.clip, CAPTIONS: captions}


def _chunks(matched: Matched, captions: Sequence[str] | None) -> Iterator[Chunk]:
    for places, images, others in matched.groups(CHUNK):
        texts = None if captions is None else [captions[place] for place in places]
        yield Chunk(places, images, texts, {"": others["reference"]}, others.get(MAPS))
