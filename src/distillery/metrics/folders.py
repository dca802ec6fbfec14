"""Compare any two folders of images: the stand-alone tool behind `distillery evaluate`.

In: a folder of images, a reference folder with files of the same names, a list of metrics. Out: the
metrics contract. PSNR and SSIM are always there; FID, KID, CLIP score and LPIPS where a network for
them is named; edges, sketch or mIoU where condition maps are. Broken, missing and differently sized
files are an error that lists them all: no image is ever dropped.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distillery.core.artifacts import hash_files, hash_json
from distillery.core.errors import DistilleryError
from distillery.data.image_folders import by_size, read_pairs, read_prompts
from distillery.metrics.control import NAMES
from distillery.metrics.fidelity import PSNR_SETTINGS, SSIM_SETTINGS, psnr, ssim
from distillery.metrics.folder_maps import NO_EXTRACTOR, Maps, judge_pairs
from distillery.metrics.intervals import Estimate, bootstrap_mean, metrics_file

if TYPE_CHECKING:
    from distillery.metrics.measure import Measure

PAIRED = ("psnr", "ssim")
NETWORKS = ("fid", "kid", "clip_score")
ALL = (*PAIRED, "lpips", *NETWORKS, *chain.from_iterable(NAMES.values()))

Found = dict[str, tuple[Estimate, dict[str, Any]]]


def evaluate_folders(
    images: Path,
    reference: Path,
    *,
    metrics: Sequence[str] | None = None,
    prompts: Path | None = None,
    conditions: Path | None = None,
    condition_kind: str = "canny",
    segmenter: str | None = None,
    extractor: str | None = None,
    lpips: str | None = None,
    device: str = "cpu",
    num_bootstrap: int = 1000,
    num_blocks: int = 16,
    on_image: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """The metrics contract for `images` against `reference`, matched by file name without suffix.

    `metrics` are what must be measured (PSNR and SSIM are anyway); None: whatever can be had, the
    rest under `skipped`. `extractor` is a local folder or hub id of a CLIP or vision model.
    `prompts` is a JSON object or a CSV with the columns `file_name` and `text`. `conditions` is a
    folder of maps of one `condition_kind`, of the same names and sizes: `canny` (white on black),
    `sketch`, which also needs the extractor, or `segmentation`, which needs a `segmenter`: `scenes`
    for this project's scenes or a local folder of one, whose colours the maps must have. `lpips` is
    a folder of AlexNet or VGG-16 with LPIPS' linear weights, or of a CLIP model. `on_image` hears
    of every file read.

    Raises DistilleryError for unmatched, broken or differently sized files, for an unknown metric,
    and for a named one that can't be had.
    """
    wanted = set(metrics or ())
    if unknown := sorted(wanted - set(ALL)):
        raise DistilleryError(f"--metrics {unknown[0]}: unknown; one of {', '.join(ALL)}")
    maps = Maps(conditions, condition_kind, segmenter)
    reasons = _unavailable(extractor, prompts, maps, lpips)
    for name in sorted(wanted & set(reasons)):
        raise DistilleryError(f"--metrics {name}: {reasons[name]}")
    names, mine, theirs = read_pairs(images, reference, on_image)
    found: Found = {
        "psnr": (bootstrap_mean(by_size(psnr, mine, theirs), num_bootstrap), PSNR_SETTINGS),
        "ssim": (bootstrap_mean(by_size(ssim, mine, theirs), num_bootstrap), SSIM_SETTINGS),
    }
    captions = read_prompts(prompts, names) if prompts else None
    measure = _network(extractor, device, num_bootstrap, num_blocks)
    if measure is not None:
        found |= _of_features(measure, mine, theirs, captions)
    if maps.can_judge(reasons):
        drawn = read_pairs(images, conditions, on_image)[2]
        judged = judge_pairs(
            maps, mine, drawn, captions, measure, device=device, num_bootstrap=num_bootstrap
        )
        found |= judged
    if lpips is not None:
        found["lpips"] = _lpips(lpips, mine, theirs, device, num_bootstrap)
    asked = {n: v for n, v in found.items() if not wanted or n in (*PAIRED, *wanted)}
    fingerprints = {
        "images": hash_json(hash_files(images)),
        "reference": hash_json(hash_files(reference)),
    }
    return metrics_file({0: asked}, reasons, fingerprints, names)


def _unavailable(
    extractor: str | None, prompts: Path | None, maps: Maps, lpips: str | None
) -> dict[str, str]:
    """{metric: why it can't be measured with these arguments}."""
    reasons = maps.reasons(extractor is not None, prompts is not None)
    if extractor is None:
        reasons |= dict.fromkeys(NETWORKS, NO_EXTRACTOR)
    elif prompts is None:
        reasons["clip_score"] = "no prompts are given"
    if lpips is None:
        reasons["lpips"] = "no LPIPS network is named; give --lpips a local folder of one"
    return reasons


def _lpips(
    name: str,
    images: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    device: str,
    num_bootstrap: int,
) -> tuple[Estimate, dict[str, Any]]:
    from distillery.metrics.lpips import load_lpips

    network = load_lpips(name, None, device)
    return bootstrap_mean(by_size(network, images, reference), num_bootstrap), network.settings()


def _network(
    name: str | None, device: str, num_bootstrap: int, num_blocks: int
) -> "Measure | None":
    if name is None:
        return None
    from distillery.metrics.features import load_extractor
    from distillery.metrics.measure import Measure

    network = load_extractor(name, None, device)
    return Measure(network, network, "", num_bootstrap, num_blocks)


def _of_features(
    measure: "Measure",
    images: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    captions: Sequence[str] | None,
) -> Found:
    """Frechet and kernel distance, and the CLIP score where there are captions."""
    features = measure.extractor.image_features
    mine, theirs = (by_size(features, side) for side in (images, reference))
    found = measure.distribution_of(mine, theirs, "the reference folder")
    found.pop("fid_extrapolated")
    return found | (measure.text_of(mine, captions) if captions is not None else {})
