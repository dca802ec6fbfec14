"""What a user names beside two folders of images, and which metrics that allows.

In: folders, names of networks. Out: `Given`: the networks, loaded, and reasons for what can't be
measured. Not here: measuring (`folders`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.conditions.kind import BUILTIN
from distillery.metrics import meters
from distillery.metrics.meter import (
    CAPTIONS,
    CLIP,
    EXTRACTOR,
    LPIPS,
    PAIRS,
    SCENES,
    SEGMENTER,
    Tools,
)
from distillery.metrics.miou import Segmenter, open_segmenter, scenes_segmenter
from distillery.metrics.redrawn import Draw, drawer_of, need_of

READER_OF_SCENES = "scenes"
NO_EXTRACTOR = "no feature extractor is named; give --extractor a local folder of a CLIP model"
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
    `scenes`), which run on `device`, `conditions` a folder of maps of `condition_kind`, which
    `annotator` draws of an image: a folder or hub id, `scenes`, None: what is built in.
    """

    prompts: Path | None = None
    conditions: Path | None = None
    condition_kind: str = "canny"
    segmenter: str | None = None
    extractor: str | None = None
    lpips: str | None = None
    device: str = "cpu"
    annotator: str | None = None

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
        return named(reasons)

    def _no_maps(self, kind: str) -> str | None:
        if self.conditions is None:
            return f"no {kind} maps are given; name them by --conditions"
        if kind != self.condition_kind:
            return f"no {kind} maps are given; --conditions holds {self.condition_kind} maps"
        return None

    def _is_given(self, group: str | None) -> bool:
        return self.conditions is not None and KINDS[self.condition_kind].group == group

    def tools(self, num_bootstrap: int, num_blocks: int) -> tuple[Tools, dict[str, str]]:
        """The networks that can be had, loaded, and {need: why it can't be had}."""
        lacking: dict[str, str] = {}
        extractor = _had(self._open_extractor, (EXTRACTOR, CLIP), lacking)
        lpips = _had(self._open_lpips, (LPIPS,), lacking)
        segmenter = _had(self._open_segmenter, (SEGMENTER,), lacking)
        if extractor is not None and extractor.tokenizer is None:
            lacking[CLIP] = f"{self.extractor}: no CLIP model, so it can't score captions"
        clip = extractor if CLIP not in lacking else None
        draw = _had(self._open_drawer, (need_of(self.condition_kind),), lacking)
        drawers = {} if draw is None else {self.condition_kind: draw}
        named = {self.condition_kind: self.annotator or BUILTIN}
        tools = Tools(
            extractor, clip, "", num_bootstrap, num_blocks, lpips, segmenter, drawers, named
        )
        return tools, lacking

    def _settings(self) -> dict[str, Any]:
        """As `extract_conditions` names what draws maps."""
        return {self.condition_kind: self.annotator or BUILTIN, "pose_detector": None}

    def _open_drawer(self) -> Draw | None:
        """What draws the maps of images again, where a metric wants that."""
        kind = KINDS[self.condition_kind]
        able = meters.of_group(kind.group)
        if self.conditions is None or not any(m.needs_any({need_of(kind.name)}) for m in able):
            return None
        draw = drawer_of(kind, self._settings(), self.device)
        if draw is None:
            by_reader = "scenes, " if kind.of_labels else ""
            raise DistilleryError(
                f"nothing draws {kind.name} maps of images; give --annotator {by_reader}a folder "
                "or a hub id"
            )
        return draw

    def _open_extractor(self) -> Any:
        if self.extractor is None:
            return None
        from distillery.metrics.features import load_extractor

        return load_extractor(self.extractor, None, self.device)

    def _open_lpips(self) -> Any:
        if self.lpips is None:
            return None
        from distillery.metrics.lpips_networks import load_lpips

        return load_lpips(self.lpips, None, self.device)

    def _open_segmenter(self) -> Segmenter | None:
        able = meters.of_group(KINDS[self.condition_kind].group)
        if self.segmenter is None or not any(m.needs_any({SEGMENTER}) for m in able):
            return None
        if self.segmenter == READER_OF_SCENES:
            return scenes_segmenter()
        return open_segmenter(self.segmenter, self.device)


def _had(opener: Callable[[], Any], needs: Sequence[str], lacking: dict[str, str]) -> Any:
    """What `opener` gives; why it can't goes to `lacking`, for each of `needs`."""
    try:
        return opener()
    except DistilleryError as error:
        lacking |= dict.fromkeys(needs, str(error))
        return None


def named(reasons: Mapping[str, str]) -> dict[str, str]:
    """Without the metrics that this command does not offer by name."""
    return {name: reason for name, reason in reasons.items() if name in NAMES}
