"""What a metric of images is to those who run it.

In: some images with what they are compared with. Out: `Meter`, a value per image, and `SetMeter`,
an estimate from the features of two sets; every metric's file has one of them. What people call a
metric stands in `catalog`. Torch is not imported. Not here: which metrics there are (`meters`),
running them (`stream`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from distillery.metrics.intervals import Estimate, bootstrap_mean

if TYPE_CHECKING:
    from distillery.metrics.features import Extractor

# What a metric may need.
PAIRS, SETS, CAPTIONS, SCENES, MAPS = "pairs", "sets", "captions", "scenes", "maps"
PREDICTIONS = "predictions"  # of models, by `prediction_distance`
EXTRACTOR, CLIP, LPIPS, SEGMENTER = "extractor", "clip", "lpips", "segmenter"

Columns = dict[str, np.ndarray]
Measured = dict[str, tuple[Estimate, dict[str, Any]]]


class PairDistance(Protocol):
    """LPIPS by some network (`lpips_networks`)."""

    def __call__(self, images: np.ndarray, others: np.ndarray) -> np.ndarray:
        """One distance per pair of images uint8 [n, H, W, 3]."""

    def settings(self) -> dict[str, Any]:
        """What the distances depend on."""


class Segmenter(Protocol):
    """What labels images and condition maps alike (`miou`)."""

    name: str

    def ious(self, images: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """The mean IoU of each image uint8 [n, H, W, 3] with its map."""


@dataclass(frozen=True)
class Tools:
    """The networks and interval settings that all models are measured with; None: not to be had.

    `extractor` is for distances of sets, `clip` for captions and sketches. `drawers` make an
    image's condition map, uint8 [H, W, 3] to uint8 [H, W] or [H, W, 3], by the map's kind, and
    `drawn_by` names them.
    """

    extractor: "Extractor | None" = None
    clip: "Extractor | None" = None
    prompt_prefix: str = ""
    num_bootstrap: int = 1000
    num_blocks: int = 16
    lpips: PairDistance | None = None
    segmenter: Segmenter | None = None
    drawers: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    drawn_by: Mapping[str, str] = field(default_factory=dict)

    def text_features(self, captions: Sequence[str]) -> np.ndarray:
        """Embeddings [n, d] of the captions behind the prompt prefix."""
        return self.clip.text_features([self.prompt_prefix + caption for caption in captions])

    def mean(
        self, values: np.ndarray, settings: Mapping[str, Any]
    ) -> tuple[Estimate, dict[str, Any]]:
        """Mean of per-image values [n] with its bootstrap interval; NaN: the image has none."""
        per_image = [None if np.isnan(value) else float(value) for value in values]
        return bootstrap_mean(per_image, self.num_bootstrap), {
            **settings,
            "interval": "bootstrap over images",
            "num_resamples": self.num_bootstrap,
        }


@dataclass(frozen=True)
class Chunk:
    """A few images uint8 [n, H, W, 3] and what belongs to them; `places` are theirs in the set.

    `references` holds the images that each is compared with, by the suffix of what is measured;
    `reference` is one of them. `maps` are condition maps of one kind, uint8 [n, H, W, 3]; `kept`
    are features by network.
    """

    places: Sequence[int] | np.ndarray
    images: np.ndarray
    captions: Sequence[str] | None = None
    references: Mapping[str, np.ndarray] = field(default_factory=dict)
    maps: np.ndarray | None = None
    reference: np.ndarray | None = None
    kept: dict[int, np.ndarray] = field(default_factory=dict)

    def features(self, extractor: "Extractor") -> np.ndarray:
        """Of the images, float64 [n, d]; made once by each network."""
        if id(extractor) not in self.kept:
            self.kept[id(extractor)] = extractor.image_features(self.images)
        return self.kept[id(extractor)]


@dataclass(frozen=True)
class Meter:
    """One or more metrics that are means over images, measured together.

    `needs` by metric; `values` gives a column float64 [n] for each metric that the chunk allows,
    NaN where an image has no value. `settings` stand beside the numbers, from the tools and the
    columns of the images that were judged. `group` is that of the condition kinds whose maps are
    compared (`data.conditions`). `empty` says why no image may have a value.
    """

    needs: Mapping[str, frozenset[str]]
    values: Callable[[Chunk, Tools], Mapping[str, np.ndarray]]
    settings: Callable[[Tools, Mapping[str, np.ndarray]], dict[str, Any]]
    group: str | None = None
    empty: str = "no image has a value"

    @property
    def names(self) -> tuple[str, ...]:
        """Of its metrics, in the order of reports."""
        return tuple(self.needs)

    def needs_any(self, what: Collection[str]) -> bool:
        """Whether one of its metrics needs one of these."""
        return any(needs & set(what) for needs in self.needs.values())

    def all_need_any(self, what: Collection[str]) -> bool:
        """Whether each of its metrics needs one of these: without them, nothing is measured."""
        return all(needs & set(what) for needs in self.needs.values())


@dataclass(frozen=True)
class SetMeter:
    """Metrics of a set of images against another, from features float64 [n, d] of both.

    `estimates(own, reference, num_blocks)` gives each with the settings of its own.
    """

    needs: Mapping[str, frozenset[str]]
    estimates: Callable[[np.ndarray, np.ndarray, int], Measured]

    @property
    def names(self) -> tuple[str, ...]:
        """Of its metrics."""
        return tuple(self.needs)


def needing(*what: str) -> frozenset[str]:
    """What a metric needs."""
    return frozenset(what)
