"""Images of a folder against a folder of condition maps of one kind.

In: pairs of images and maps of equal size, the networks that the kind needs. Out: the kind's
metrics, or the reasons why they can't be had. Not here: reading files (`folders`), what a kind's
metrics are (`conditioned`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.data.image_folders import by_size
from distillery.metrics.conditioned import Segmenter, judge, open_segmenter, scenes_segmenter
from distillery.metrics.control import KINDS, NAMES
from distillery.metrics.intervals import Estimate, bootstrap_mean

if TYPE_CHECKING:
    from distillery.metrics.measure import Measure

SCENES = "scenes"
NO_EXTRACTOR = "no feature extractor is named; give a local folder of a CLIP model"


@dataclass(frozen=True)
class Maps:
    """The folder of maps, their kind, and for segmentations `scenes` or a segmenter's folder."""

    folder: Path | None
    kind: str
    segmenter: str | None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DistilleryError(f"--condition-kind {self.kind}: one of {', '.join(KINDS)}")

    def reasons(self, has_extractor: bool, has_prompts: bool) -> dict[str, str]:
        """{metric: why it can't be measured}, of the metrics of all kinds."""
        found: dict[str, str] = {}
        for kind, names in NAMES.items():
            if reason := self._reason(kind, has_extractor):
                found |= dict.fromkeys(names, reason)
            elif kind == "sketch" and not has_prompts:
                found["sketch_clip_score"] = "no prompts are given"
        return found

    def _reason(self, kind: str, has_extractor: bool) -> str | None:
        if self.folder is None:
            return f"no {kind} maps are given; name them by --conditions"
        if kind != self.kind:
            return f"no {kind} maps are given; --conditions holds {self.kind} maps"
        if kind == "segmentation" and self.segmenter is None:
            return "no segmenter is named; give --segmenter scenes or a local folder of one"
        if kind == "sketch" and not has_extractor:
            return NO_EXTRACTOR
        return None

    def can_judge(self, reasons: Mapping[str, str]) -> bool:
        """Whether a metric of this kind can be measured."""
        return not set(NAMES[self.kind]) <= set(reasons)

    def open_segmenter(self, device: str) -> Segmenter | None:
        """What labels the images; None where there is nothing to label."""
        if self.kind != "segmentation" or self.segmenter is None:
            return None
        if self.segmenter == SCENES:
            return scenes_segmenter()
        return open_segmenter(self.segmenter, device)


Found = dict[str, tuple[Estimate, dict]]


def judge_pairs(
    maps: Maps,
    images: Sequence[np.ndarray],
    conditions: Sequence[np.ndarray],
    captions: Sequence[str] | None,
    measure: "Measure | None",
    *,
    device: str,
    num_bootstrap: int,
) -> Found:
    """The metrics of `maps.kind`; an image whose map is empty, or void altogether, has no value.

    Raises DistilleryError where every map is empty.
    """
    segmenter, described = maps.open_segmenter(device), {}

    def columns(batch: np.ndarray, wanted: np.ndarray, index: np.ndarray) -> np.ndarray:
        texts = None if captions is None else [captions[i] for i in index]
        values, settings = judge(maps.kind, batch, wanted, texts, measure, segmenter)
        described.update(settings, names=list(values))
        return np.stack(list(values.values()), axis=1)

    table = by_size(columns, images, conditions, range(len(images))).T
    empty = int(np.isnan(table[0]).sum())
    if empty == len(images):
        raise DistilleryError(f"{maps.folder}: every map is empty; {_FORMS[maps.kind]}")
    if "left_out_empty_maps" in described:
        described["left_out_empty_maps"] = empty
    names, settings = described.pop("names"), {**described, "condition": maps.kind}
    rows = [[None if np.isnan(v) else float(v) for v in column] for column in table]
    estimates = [bootstrap_mean(row, num_bootstrap) for row in rows]
    return {name: (found, settings) for name, found in zip(names, estimates, strict=True)}


_FORMS = {
    "canny": "edge maps are white on black",
    "sketch": "sketches are light lines on black",
    "segmentation": "pixels of PASCAL VOC's void colour are left out",
}
