"""What an earlier run has found out about pairs of pictures, so that only new ones are compared.

In: the names of the pictures of a search, equal for equal pictures. Out: which of them are new, and
the connections found among the others. A kept search covers all pairs of its pictures, and whether
two are connected depends on the two alone; so its connections and those of pairs with a new picture
make the clusters that a search from nothing makes. Where a picture has gone, those that were
connected with it count as new, since the connection may have gone too. Not here: the comparisons.
"""

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distillery.core.publishing import publish
from distillery.data.dedupe.clusters import Clusters

Pairs = list[tuple[int, int]]


class Known:
    """The searches of one file. One that is damaged, or of another `key`, counts as none.

    `key` names what a connection depends on besides the pictures: code, libraries, thresholds.
    Without a file everything is new, and nothing is kept.
    """

    def __init__(self, file: Path | None = None, key: str = "") -> None:
        self._file, self._key = file, key
        self._found: dict[str, np.ndarray] = {}
        self._kept = _read(file, key) if file is not None and file.is_file() else {}

    def among(self, search: str, names: np.ndarray) -> tuple[np.ndarray, Pairs]:
        """bool (N,), the pictures that are new; and pairs that connect the others.

        `names` are distinct, `S32` (N,).
        """
        kept, pairs = self._kept.get(f"{search} names"), self._kept.get(f"{search} pairs")
        if kept is None or not len(kept):
            return np.ones(len(names), dtype=bool), []
        places = places_of(kept, names)
        gone = places < 0
        clusters = Clusters(len(kept))
        for i, j in pairs.tolist():
            clusters.join(i, j)
        roots = clusters.roots()
        broken = np.isin(roots, roots[gone])
        is_new = np.ones(len(names), dtype=bool)
        is_new[places[~broken]] = False
        whole = places[pairs[~broken[pairs[:, 0]]]]
        return is_new, [(int(i), int(j)) for i, j in whole]

    def keep(self, search: str, names: np.ndarray, pairs: Sequence[tuple[int, int]]) -> None:
        """Note a search: its pictures, and pairs that connect all that are connected."""
        self._found[f"{search} names"] = names
        self._found[f"{search} pairs"] = np.array(pairs, dtype=np.int32).reshape(-1, 2)

    def write(self) -> None:
        """Put the searches that were noted into the file, in place of those that it held."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with publish(self._file) as partial, partial.open("wb") as out:
            np.savez(out, key=np.array(self._key), **self._found)


def _read(file: Path, key: str) -> dict[str, np.ndarray]:
    """The searches in a file; none, with a line, where it can't be used."""
    try:
        with np.load(file, allow_pickle=False) as held:
            values = {name: held[name] for name in held.files}  # compares the checksums
        found_key = str(values.pop("key"))
        _require_sound(values)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print(f"deduplicate: {file}: damaged ({error}); everything is compared", file=sys.stderr)
        return {}
    if found_key == key:
        return values
    print(
        f"deduplicate: {file}: of other code or thresholds; everything is compared",
        file=sys.stderr,
    )
    return {}


def _require_sound(values: dict[str, np.ndarray]) -> None:
    for name, pairs in values.items():
        if name.endswith(" pairs"):
            num = len(values[name.replace(" pairs", " names")])
            if pairs.ndim != 2 or (len(pairs) and (pairs.min() < 0 or pairs.max() >= num)):
                raise ValueError(f"pairs of {name} that are not there")


def places_of(kept: np.ndarray, names: np.ndarray) -> np.ndarray:
    """int64: for each kept name its place in `names`, or -1."""
    if not len(names):
        return np.full(len(kept), -1)
    order = np.argsort(names)
    places = order[np.searchsorted(names, kept, sorter=order).clip(max=len(names) - 1)]
    return np.where(names[places] == kept, places, -1)
