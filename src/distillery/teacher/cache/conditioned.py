"""Cached samples with their condition maps."""

import dataclasses

import numpy as np

from distillery.data.conditions.reader import ConditionMaps
from distillery.diffusion.batch import Batch, Samples


class ConditionedSamples:
    """The same items as `samples`, whose batches carry the maps of their records."""

    def __init__(self, samples: Samples, maps: ConditionMaps) -> None:
        self._samples, self._maps = samples, maps

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, items: np.ndarray) -> Batch:
        """The items with these numbers, in this order."""
        batch = self._samples.batch(items)
        return dataclasses.replace(batch, conditions=self._maps.batch(batch.keys))
