"""Compare any two folders of images: the stand-alone tool behind `distillery evaluate`.

In: a folder of images, a reference folder with files of the same names, a list of metrics. Out: the
metrics contract. PSNR and SSIM are always there; FID, KID, CLIP score and LPIPS where a network for
them is named, edge metrics where condition maps are. Broken, missing and differently sized files
are an error that lists them all: no image is ever dropped.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillery.artifacts import hash_files, hash_json
from distillery.data.images import UndecodableError, decode_rgb
from distillery.errors import DistilleryError
from distillery.metrics.control import EDGE_METRICS, EDGE_SETTINGS, edge_metrics
from distillery.metrics.fidelity import PSNR_SETTINGS, SSIM_SETTINGS, psnr, ssim
from distillery.metrics.intervals import Estimate, bootstrap_mean, metrics_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
PAIRED = ("psnr", "ssim")
NETWORKS = ("fid", "kid", "clip_score")
ALL = (*PAIRED, "lpips", *NETWORKS, *EDGE_METRICS)
MAX_LISTED = 20

Found = dict[int, dict[str, tuple[Estimate, dict[str, Any]]]]


def evaluate_folders(
    images: Path,
    reference: Path,
    *,
    metrics: Sequence[str] | None = None,
    prompts: Path | None = None,
    conditions: Path | None = None,
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
    folder of edge maps, white on black, of the same names and sizes. `lpips` is a folder of AlexNet
    or VGG-16 with LPIPS' linear weights, or of a CLIP model. `on_image` hears of every file read.

    Raises DistilleryError for unmatched, broken or differently sized files, for an unknown metric,
    and for a named one that can't be had.
    """
    wanted = set(metrics or ())
    if unknown := sorted(wanted - set(ALL)):
        raise DistilleryError(f"--metrics {unknown[0]}: unknown; one of {', '.join(ALL)}")
    reasons = _unavailable(extractor, prompts, conditions, lpips)
    for name in sorted(wanted & set(reasons)):
        raise DistilleryError(f"--metrics {name}: {reasons[name]}")
    names, mine, theirs = read_pairs(images, reference, on_image)
    found: dict[str, tuple[Estimate, dict[str, Any]]] = {
        "psnr": (bootstrap_mean(by_size(psnr, mine, theirs), num_bootstrap), PSNR_SETTINGS),
        "ssim": (bootstrap_mean(by_size(ssim, mine, theirs), num_bootstrap), SSIM_SETTINGS),
    }
    if extractor is not None:
        captions = read_prompts(prompts, names) if prompts else None
        found |= _with_network(extractor, mine, theirs, captions, device, num_bootstrap, num_blocks)
    if conditions is not None:
        found |= _edges(images, conditions, mine, num_bootstrap, on_image)
    if lpips is not None:
        found["lpips"] = _lpips(lpips, mine, theirs, device, num_bootstrap)
    asked = {n: v for n, v in found.items() if not wanted or n in (*PAIRED, *wanted)}
    fingerprints = {
        "images": hash_json(hash_files(images)),
        "reference": hash_json(hash_files(reference)),
    }
    return metrics_file({0: asked}, reasons, fingerprints, names)


def _unavailable(
    extractor: str | None, prompts: Path | None, conditions: Path | None, lpips: str | None
) -> dict[str, str]:
    """{metric: why it can't be measured with these arguments}."""
    reasons: dict[str, str] = {}
    if extractor is None:
        reason = "no feature extractor is named; give a local folder of a CLIP model"
        reasons |= dict.fromkeys(NETWORKS, reason)
    elif prompts is None:
        reasons["clip_score"] = "no prompts are given"
    if lpips is None:
        reasons["lpips"] = "no LPIPS network is named; give --lpips a local folder of one"
    if conditions is None:
        reasons |= dict.fromkeys(EDGE_METRICS, "no edge maps are given; name them by --conditions")
    return reasons


def _edges(
    images: Path,
    conditions: Path,
    mine: Sequence[np.ndarray],
    num_bootstrap: int,
    on_image: Callable[[int], object],
) -> dict[str, tuple[Estimate, dict[str, Any]]]:
    """Edge metrics of the images against the maps; images with an empty map have no value."""
    maps = read_pairs(images, conditions, on_image)[2]

    def judge(batch: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return np.stack(list(edge_metrics(batch, wanted[..., 0] / 255).values()), axis=1)

    columns = by_size(judge, mine, maps).T
    empty = int(np.isnan(columns[0]).sum())
    if empty == len(mine):
        raise DistilleryError(f"{conditions}: every map is empty; edge maps are white on black")
    settings = {**EDGE_SETTINGS, "left_out_empty_maps": empty}
    rows = [[None if np.isnan(value) else value for value in column] for column in columns]
    estimates = [bootstrap_mean(row, num_bootstrap) for row in rows]
    return {n: (e, settings) for n, e in zip(EDGE_METRICS, estimates, strict=True)}


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


def _with_network(
    name: str,
    images: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    captions: Sequence[str] | None,
    device: str,
    num_bootstrap: int,
    num_blocks: int,
) -> dict[str, tuple[Estimate, dict[str, Any]]]:
    from distillery.metrics.features import load_extractor
    from distillery.metrics.measure import Measure

    network = load_extractor(name, None, device)
    measure = Measure(network, network, "", num_bootstrap, num_blocks)
    mine, theirs = (by_size(network.image_features, side) for side in (images, reference))
    found = measure.distribution_of(mine, theirs, "the reference folder")
    found.pop("fid_extrapolated")
    return found | (measure.text_of(mine, captions) if captions is not None else {})


def by_size(function: Callable[..., np.ndarray], *sides: Sequence[np.ndarray]) -> np.ndarray:
    """`function` of equally large images at a time; its rows in the order of the images."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(sides[0]):
        groups.setdefault(image.shape, []).append(index)
    rows: list[Any] = [None] * len(sides[0])
    for indices in groups.values():
        values = function(*(np.stack([side[i] for i in indices]) for side in sides))
        for index, value in zip(indices, values, strict=True):
            rows[index] = value
    return np.stack(rows)


def read_pairs(
    images: Path, reference: Path, on_image: Callable[[int], object] = lambda count: None
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """(names, images, reference images), uint8 [H, W, 3] each, sorted by name."""
    mine, theirs = _list(images), _list(reference)
    problems = [f"{images}/{name}: not in {reference}" for name in sorted(set(mine) - set(theirs))]
    problems += [f"{reference}/{name}: not in {images}" for name in sorted(set(theirs) - set(mine))]
    names, pairs = sorted(set(mine) & set(theirs)), []
    for name in names:
        pair = []
        for path in (mine[name], theirs[name]):
            try:
                pair.append(decode_rgb(path.read_bytes()))
            except (UndecodableError, OSError) as error:
                problems.append(f"{path}: broken: {error}")
            on_image(1)
        if len(pair) == 2 and pair[0].shape != pair[1].shape:
            problems.append(f"{mine[name]}: {pair[0].shape[:2]}, reference {pair[1].shape[:2]}")
        pairs.append(pair)
    _refuse(problems)
    return names, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _list(folder: Path) -> dict[str, Path]:
    """{name without suffix: file}; two files of one name, or none at all, are errors."""
    if not folder.is_dir():
        raise DistilleryError(f"{folder}: no folder; give one with images")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        if path.stem in found:
            raise DistilleryError(f"{path}: {found[path.stem].name} has the same name; keep one")
        found[path.stem] = path
    if not found:
        raise DistilleryError(f"{folder}: no images ({', '.join(SUFFIXES)})")
    return found


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        listed = [*problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            listed.append(f"and {len(problems) - MAX_LISTED} more")
        raise DistilleryError(
            "\n".join([*listed, f"{len(problems)} files do not pair up; mend or remove them"])
        )


def read_prompts(path: Path, names: Sequence[str]) -> list[str]:
    """Captions of the named images from a JSON object or a CSV; a missing one is an error."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            rows = json.loads(text).items()
        else:
            rows = [(r["file_name"], r["text"]) for r in csv.DictReader(text.splitlines())]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DistilleryError(
            f"{path}: no prompts ({error}); give JSON {{name: text}} or CSV file_name,text"
        ) from None
    captions = {Path(name).stem: caption for name, caption in rows}
    if lost := [name for name in names if name not in captions]:
        raise DistilleryError(f"{path}: no prompt for {lost[0]} ({len(lost)} in all)")
    return [captions[name] for name in names]
