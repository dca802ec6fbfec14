"""Disjoint sets of rows.

In: pairs of rows that are one. Out: the sets they make. Not here: which rows are one.
"""

from array import array

import numpy as np


class Clusters:
    """Sets of row numbers; the root of a set is its smallest number."""

    def __init__(self, size: int) -> None:
        self._parents = array("q", range(size))
        self._roots: np.ndarray | None = None

    def root(self, index: int) -> int:
        """The smallest number of the set that `index` is in."""
        parents = self._parents
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def join(self, i: int, j: int) -> None:
        """Make the sets of i and j one."""
        first, second = sorted((self.root(i), self.root(j)))
        self._parents[second] = first
        self._roots = None

    def roots(self) -> np.ndarray:
        """int64 (size,): the root of every row."""
        if self._roots is None:
            parents = np.array(self._parents, dtype=np.int64)
            while (parents[parents] != parents).any():
                parents = parents[parents]
            self._roots = parents
        return self._roots
