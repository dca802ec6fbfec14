"""Compare any two folders of images: the stand-alone tool behind `distillery evaluate`.

In: a folder of images, a reference folder with files of the same names, a list of metrics. Out: the
metrics contract. PSNR and SSIM are always there; FID, KID, CLIP score and LPIPS where a network for
them is named; edges, sketch or mIoU where condition maps are. Images are read once, a few at a
time. Broken, missing and differently sized files are an error that lists them all: no image is ever
dropped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillery.core.artifacts import hash_files, hash_json
from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.image_folders import Matched, read_prompts
from distillery.metrics import meters
from distillery.metrics.intervals import metrics_file
from distillery.metrics.meter import (
    CAPTIONS,
    CLIP,
    EXTRACTOR,
    LPIPS,
    PAIRS,
    SCENES,
    SEGMENTER,
    Chunk,
    Measured,
    Tools,
)
from distillery.metrics.miou import Segmenter, open_segmenter, scenes_segmenter
from distillery.metrics.stream import CHUNK, Pass, set_estimates

READER_OF_SCENES = "scenes"
NO_EXTRACTOR = "no feature extractor is named; give a local folder of a CLIP model"
LACKING = {
    LPIPS: "no LPIPS network is named; give --lpips a local folder of one",
    SEGMENTER: "no segmenter is named; give --segmenter scenes or a local folder of one",
    EXTRACTOR: NO_EXTRACTOR,
    CLIP: NO_EXTRACTOR,
    CAPTIONS: "no prompts are given",
}
# Whether images are scenes can't be seen from a folder; the extrapolated distance stands in the
# settings of the raw one.
OFFERED = tuple(m for m in meters.METERS if not m.needs_any({SCENES}))
NAMES = tuple(n for n in meters.names_of((*OFFERED, *meters.SET_METERS)) if n != "fid_extrapolated")
# Whatever is asked for: what needs nothing but the two folders.
ALWAYS = tuple(name for m in OFFERED for name, needs in m.needs.items() if needs == {PAIRS})


@dataclass(frozen=True)
class Given:
    """What a user named beside the images; None for what was not.

    `extractor`, `lpips` and `segmenter` are folders or hub ids of networks (a segmenter may be
    `scenes`), which run on `device`, `conditions` a folder of maps of `condition_kind`.
    """

    prompts: Path | None = None
    conditions: Path | None = None
    condition_kind: str = "canny"
    segmenter: str | None = None
    extractor: str | None = None
    lpips: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.condition_kind not in KINDS:
            known = ", ".join(KINDS)
            raise DistilleryError(f"--condition-kind {self.condition_kind}: one of {known}")

    def reasons(self) -> dict[str, str]:
        """{metric: why it can't be measured with this}."""
        networks = {LPIPS: self.lpips, SEGMENTER: self.segmenter, CAPTIONS: self.prompts}
        networks |= dict.fromkeys((EXTRACTOR, CLIP), self.extractor)
        lacking = {need: reason for need, reason in LACKING.items() if networks[need] is None}
        reasons = meters.unavailable((*OFFERED, *meters.SET_METERS), lacking)
        for name, kind in reversed(KINDS.items()):
            if reason := self._no_maps(name):
                names = meters.names_of(meters.of_group(kind.group))
                reasons |= {n: reason for n in names if not self._is_given(kind.group)}
        return {name: reason for name, reason in reasons.items() if name in NAMES}

    def _no_maps(self, kind: str) -> str | None:
        if self.conditions is None:
            return f"no {kind} maps are given; name them by --conditions"
        if kind != self.condition_kind:
            return f"no {kind} maps are given; --conditions holds {self.condition_kind} maps"
        return None

    def _is_given(self, group: str | None) -> bool:
        return self.conditions is not None and KINDS[self.condition_kind].group == group

    def tools(self, num_bootstrap: int, num_blocks: int) -> Tools:
        """The networks, loaded; raises DistilleryError where one can't be had."""
        extractor, lpips = None, None
        if self.extractor is not None:
            from distillery.metrics.features import load_extractor

            extractor = load_extractor(self.extractor, None, self.device)
        if self.lpips is not None:
            from distillery.metrics.lpips_networks import load_lpips

            lpips = load_lpips(self.lpips, None, self.device)
        segmenter = self._open_segmenter()
        return Tools(extractor, extractor, "", num_bootstrap, num_blocks, lpips, segmenter)

    def _open_segmenter(self) -> Segmenter | None:
        able = meters.of_group(KINDS[self.condition_kind].group)
        if self.segmenter is None or not any(m.needs_any({SEGMENTER}) for m in able):
            return None
        if self.segmenter == READER_OF_SCENES:
            return scenes_segmenter()
        return open_segmenter(self.segmenter, self.device)


def evaluate_folders(
    images: Path,
    reference: Path,
    given: Given = Given(),
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
    wanted, reasons = set(metrics or ()), given.reasons()
    _check_names(wanted, reasons)
    folders = {"reference": reference}
    if given.conditions is not None:
        folders["maps"] = given.conditions
    matched = Matched(images, folders, on_image)
    captions = read_prompts(given.prompts, matched.names) if given.prompts else None
    tools = given.tools(num_bootstrap, num_blocks)
    measured = _measure(matched, tools, captions, given)
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
) -> Measured:
    """All metrics that can be had, in one pass over the files."""
    group = KINDS[given.condition_kind].group if given.conditions is not None else None
    lacking = {n for n, tool in _tools_by_need(tools, captions).items() if tool is None}
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
    if has_features:
        features = own.features, other.features
        measured |= set_estimates(meters.SET_METERS, *features, tools, "the reference folder")
    return {name: value for name, value in measured.items() if name in NAMES}


def _tools_by_need(tools: Tools, captions: Sequence[str] | None) -> dict[str, object]:
    return {LPIPS: tools.lpips, SEGMENTER: tools.segmenter, CLIP: tools.clip, CAPTIONS: captions}


def _chunks(matched: Matched, captions: Sequence[str] | None) -> Iterator[Chunk]:
    for places, images, others in matched.groups(CHUNK):
        texts = None if captions is None else [captions[place] for place in places]
        yield Chunk(places, images, texts, {"": others["reference"]}, others.get("maps"))
