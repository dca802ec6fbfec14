"""What a training is made from: the folders that its stage declares, and what they hold.

In: the teacher's folder, the folders of the cache's views and of condition maps, each by its own
path. Out: the teacher's noise schedule, its cache, training and validation samples. No path is
derived from another one, so what is declared is what is read. Not here: files, objectives.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.data.conditions.reader import ConditionMaps
from distillery.diffusion.batch import Batch, Samples
from distillery.diffusion.losses import Weighting
from distillery.diffusion.objectives import Diffusion
from distillery.teacher.cache.read import CachedSamples, TeacherCache
from distillery.teacher.load import alphas_cumprod, load_scheduler


@dataclass(frozen=True)
class Sources:
    """`base` and `views` are folders of the cache, of all parts; `views` by the view's name.

    `base_model` is what the teacher was made from: a name for the model card.
    """

    teacher: Path
    base: Path
    base_model: str
    views: Mapping[str, Path] = field(default_factory=dict)
    conditions: Path | None = None

    def diffusion(self, kind: Weighting, gamma: float, space: str = "native") -> Diffusion:
        """The teacher's schedule, errors weighted in `space`: `native`, eps, v or x0."""
        scheduler = load_scheduler(self.teacher)
        prediction = scheduler.config.prediction_type
        alpha_bar = alphas_cumprod(scheduler)
        return Diffusion.create(alpha_bar, prediction, space=space, kind=kind, gamma=gamma)

    def cache(self, *views: str) -> TeacherCache:
        """The cache with these of its views; DistilleryError for one that is not declared."""
        for view in views:
            if view not in self.views:
                raise DistilleryError(f"training: the view {view} of the teacher's cache is needed")
        num_timesteps = load_scheduler(self.teacher).config.num_train_timesteps
        return TeacherCache(self.base, {view: self.views[view] for view in views}, num_timesteps)

    def data(
        self, cache: TeacherCache, kinds: Sequence[str] = (), *, only_with_maps: bool = False
    ) -> "TrainingData":
        """Both splits of the cache, with condition maps of these `kinds`.

        `only_with_maps` leaves out records that lack one of them. Raises DistilleryError where no
        record to train on has a map of a kind.
        """
        train, val = (cache.samples(split) for split in ("train", "val"))
        if kinds:
            maps = ConditionMaps(self.conditions, kinds, cache.meta.resolution_px)
            _require_maps(maps, train.keys())
            if only_with_maps:
                train, val = (s.having(maps.is_complete) for s in (train, val))
            train, val = (ConditionedSamples(samples, maps) for samples in (train, val))
        return TrainingData(train, val, cache.empty(), cache.meta.num_slots)


@dataclass(frozen=True)
class TrainingData:
    """Samples of both splits, `num_slots` items to a record; the empty caption's conditioning."""

    train: Samples
    val: Samples
    empty: Mapping[str, Tensor]
    num_slots: int

    def shown(self, count: int) -> Batch:
        """The first item of each of up to `count` records of `val`; of `train` if it is empty."""
        return self._first(self.val if len(self.val) else self.train, count)

    def seen(self, count: int) -> Batch:
        """The first item of each of up to `count` records of `train`."""
        return self._first(self.train, count)

    def _first(self, samples: Samples, count: int) -> Batch:
        return samples.batch(
            np.arange(0, min(len(samples), count * self.num_slots), self.num_slots)
        )


class ConditionedSamples:
    """The same items as `samples`, whose batches carry the maps of their records."""

    def __init__(self, samples: CachedSamples, maps: ConditionMaps) -> None:
        self._samples, self._maps = samples, maps
        self._is_partial = not all(map(maps.is_complete, samples.keys()))

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, items: np.ndarray) -> Batch:
        """The items with these numbers, in this order."""
        batch = self._samples.batch(items)
        has_map = self._maps.presence(batch.keys) if self._is_partial else {}
        return dataclasses.replace(batch, conditions=self._maps.batch(batch.keys), has_map=has_map)


def _require_maps(maps: ConditionMaps, keys: Sequence[str]) -> None:
    for kind in maps.kinds:
        if not any(maps.has(kind, key) for key in keys):
            raise DistilleryError(
                f"training: none of {len(keys)} records to train on has a {kind} map; see "
                "counts.json of data/conditions, which says why they are left out"
            )
