"""One pass over many images, a few in memory at a time, and the estimates that come of it.

In: chunks of images, meters. Out: columns of per-image values, features of whole sets, and then
metrics with their settings. A column is a number per image; no image is kept. Torch is not
imported. Not here: where chunks come from (`evaluation`, `folders`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from distillery.metrics.feature_sets import notes
from distillery.metrics.meter import PAIRS, Chunk, Columns, Measured, Meter, SetMeter, Tools

# A multiple of the networks' batch size, so that batches are those of all images at once.
CHUNK = 64


@dataclass
class Pass:
    """What a pass over `num_images` images collects: columns float64 [num_images], NaN for none,
    and with `keeps_features` those of the extractor, float64 [num_images, d].

    Columns of pairs carry the suffix of their reference; `references` are the settings that say
    what each suffix stands for.
    """

    num_images: int
    meters: Sequence[Meter]
    tools: Tools
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keeps_features: bool = False
    columns: Columns = field(default_factory=dict)
    features: np.ndarray | None = None

    def run(self, chunks: Iterable[Chunk]) -> "Pass":
        """Take in all chunks; returns itself."""
        for chunk in chunks:
            self.take(chunk)
        return self

    def take(self, chunk: Chunk) -> None:
        """Measure the images of one chunk."""
        if self.keeps_features:
            self._keep(chunk.places, chunk.features(self.tools.extractor))
        for meter in self.meters:
            for suffix, part in _parts(chunk, meter):
                for name, values in meter.values(part, self.tools).items():
                    self._column(name + suffix)[chunk.places] = values

    def _column(self, name: str) -> np.ndarray:
        if name not in self.columns:
            self.columns[name] = np.full(self.num_images, np.nan)
        return self.columns[name]

    def _keep(self, places: Sequence[int], rows: np.ndarray) -> None:
        if self.features is None:
            self.features = np.empty((self.num_images, rows.shape[1]))
        self.features[places] = rows

    def means(
        self,
        of_maps: Mapping[str, Any] = MappingProxyType({}),
        judged: Sequence[int] | slice = slice(None),
    ) -> tuple[Measured, dict[str, str]]:
        """Means of all columns, and {metric: reason} of those without any value.

        `of_maps` are further settings of what compares with condition maps; `judged` are the
        places that were looked at.
        """
        measured: Measured = {}
        empty: dict[str, str] = {}
        for meter in self.meters:
            for suffix, named in self.references.items() if _is_of_pairs(meter) else [("", {})]:
                names = {n: n + suffix for n in meter.names if n + suffix in self.columns}
                values = {name: self.columns[column][judged] for name, column in names.items()}
                if not values:
                    continue
                further = named if meter.group is None else of_maps
                settings = {**meter.settings(self.tools, values), **further}
                for column in names.values():
                    if np.isnan(self.columns[column]).all():
                        empty[column] = meter.empty
                    else:
                        measured[column] = self.tools.mean(self.columns[column], settings)
        return measured, empty


def _is_of_pairs(meter: Meter) -> bool:
    return meter.needs_any({PAIRS})


def _parts(chunk: Chunk, meter: Meter) -> Iterator[tuple[str, Chunk]]:
    """The chunk, or for a meter of pairs one for every reference, with its suffix."""
    if not _is_of_pairs(meter):
        yield "", chunk
        return
    for suffix, reference in chunk.references.items():
        yield suffix, replace(chunk, reference=reference)


def set_estimates(
    meters: Iterable[SetMeter], own: np.ndarray, reference: np.ndarray, tools: Tools, named: str
) -> Measured:
    """Distances of features [n, d] to a set with features [m, d], which is called `named`."""
    settings = {
        **tools.extractor.settings(),
        "reference": named,
        "num_reference": len(reference),
        "num_features": own.shape[1],
        "num_blocks": tools.num_blocks,
        "notes": notes(len(own), len(reference), own.shape[1]),
    }
    return {
        name: (estimate, {**settings, **further})
        for meter in meters
        for name, (estimate, further) in meter.estimates(own, reference, tools.num_blocks).items()
    }


def renamed(measured: Measured, suffix: str) -> Measured:
    """The same metrics under names with a suffix: `fid` as `fid_teacher`."""
    return {name + suffix: value for name, value in measured.items()}
