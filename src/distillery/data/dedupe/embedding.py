"""Pairs of pictures that a vision model finds alike.

In: a network, rows and their images. Out: pairs whose vectors have a cosine above a threshold. The
vectors of 1,024 images are a file, in float16, kept for the next run, so that only new images go
through the network; one that is damaged is made again. Memory is that of some files, whatever the
number of images. A pair's cosine depends on the two images alone: products of float16 in unit
vectors are multiples of 2^-48, which float64 sums exactly in any order. Not here: loading networks,
and whether two are the same picture.
"""

import itertools
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.core.progress import bar
from distillery.core.publishing import publish
from distillery.data.dedupe.known import places_of
from distillery.data.dedupe.rows import Rows

_BATCH_IMAGES = 64
_FILE_IMAGES = 2**10
_ASKING_ROWS = 2**13
_BLOCK_PAIRS = 2**13
_MAX_NORM_ERROR = 1e-2  # of numbers rounded to float16
_SLACK = 1e-3  # of a cosine summed in float32; what is near is summed again, exactly

Held = list[tuple[Path, np.ndarray]]
"""Files, and of each vector in them the row that it is of, or -1."""


class Network(Protocol):
    """A vision model; up to 64 prepared images become vectors (N, D), the same in any company."""

    def prepare(self, image: np.ndarray) -> Any: ...

    def prepared_features(self, prepared: Sequence[Any]) -> np.ndarray: ...


class Images(Protocol):
    """Where images come from: (place among the rows, uint8 (H, W, 3)), in any order."""

    def images(self, rows: Rows) -> Iterator[tuple[int, np.ndarray]]: ...


class Embedding:
    """A network with a threshold; `name` says what vectors depend on besides the image.

    Files go to a folder of that name in `folder`; those of other names go when the first is made.
    """

    def __init__(self, network: Network, name: str, min_cosine: float, folder: Path) -> None:
        self._network, self._min_cosine = network, min_cosine
        self._folder = folder / name
        self.search = f"embedding {name} {min_cosine}"

    def pairs(self, rows: Rows, source: Images, is_new: np.ndarray) -> Iterator[np.ndarray]:
        """Blocks of int64 (M, 2), rows i < j that are alike, one of them new; each pair once.

        `is_new` is bool (N,). Raises DistilleryError where the network gives no numbers.
        """
        held = self._held(rows.names)
        known = np.concatenate([np.empty(0, np.int64), *(places for _, places in held)])
        missing = np.setdiff1d(np.arange(len(rows)), known)
        if len(missing):
            self._embed(rows.take(missing), source)
            held = self._held(rows.names)
        turns = _turns(held, is_new)
        num_steps = -(-int(is_new.sum()) // _ASKING_ROWS) * len(held)
        with bar(num_steps, "deduplicate neighbours", unit="block") as progress:
            for asking, ours in _groups(held, is_new):
                for file, places in held:
                    if turns[places].max(initial=-1) > turns[asking].min():
                        yield from self._alike(asking, ours, places, _vectors(file), turns)
                    progress.update()

    def _held(self, names: np.ndarray) -> Held:
        held = []
        for file in self._files():
            try:
                with np.load(file, allow_pickle=False) as values:  # compares the checksums
                    found = values["names"]
                    _require_sound(found, values["vectors"], names.dtype.kind)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                print(f"deduplicate: {file}: damaged ({error}); it is made again", file=sys.stderr)
                file.unlink()
                continue
            held.append((file, found))
        found = np.concatenate([np.empty(0, names.dtype), *(found for _, found in held)])
        ends = np.cumsum([len(found) for _, found in held])[:-1]
        places = np.split(places_of(found, names), ends)
        return [(file, some) for (file, _), some in zip(held, places, strict=False)]

    def _embed(self, rows: Rows, source: Images) -> None:
        self._clear()
        number = max((int(file.stem) for file in self._files()), default=-1) + 1
        images = source.images(rows)
        with bar(len(rows), "deduplicate embedding", unit="image") as progress:
            for start in range(0, len(rows), _FILE_IMAGES):
                places, vectors = [], []
                for _ in range(_FILE_IMAGES // _BATCH_IMAGES):
                    some = [
                        (place, self._network.prepare(image))
                        for place, image in itertools.islice(images, _BATCH_IMAGES)
                    ]
                    if some:
                        places += [place for place, _ in some]
                        vectors.append(self._unit([prepared for _, prepared in some]))
                        progress.update(len(some))
                file = self._folder / f"{number + start // _FILE_IMAGES:06}.npz"
                with publish(file) as partial, partial.open("wb") as out:
                    np.savez(out, names=rows.names[places], vectors=np.concatenate(vectors))

    def _files(self) -> list[Path]:
        return sorted(f for f in self._folder.glob("*.npz") if f.stem.isdecimal() and f.is_file())

    def _clear(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in self._folder.parent.iterdir():
            if other != self._folder and other.is_dir() and not other.is_symlink():
                shutil.rmtree(other)

    def _unit(self, prepared: Sequence[Any]) -> np.ndarray:
        """float16 (N, D), of length 1."""
        vectors = self._network.prepared_features(prepared)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise DistilleryError(
                "deduplicate.embedding: the model's vectors are zero or no numbers; name another"
            )
        return (vectors / norms).astype(np.float16)

    def _alike(
        self,
        asking: np.ndarray,
        ours: np.ndarray,
        places: np.ndarray,
        theirs: np.ndarray,
        turns: np.ndarray,
    ) -> Iterator[np.ndarray]:
        """Pairs of rows `asking` and of rows `places` whose turn is later."""
        i, j = np.nonzero(ours @ theirs.T >= self._min_cosine - _SLACK)
        later = turns[places[j]] > turns[asking[i]]
        i, j = i[later], j[later]
        for start in range(0, len(i), _BLOCK_PAIRS):
            block = slice(start, start + _BLOCK_PAIRS)
            products = ours[i[block]].astype(np.float64) * theirs[j[block]]
            near = products.sum(axis=1) >= self._min_cosine
            if near.any():
                pairs = np.stack([asking[i[block]], places[j[block]]], axis=1)[near]
                yield np.sort(pairs, axis=1)


def _require_sound(names: np.ndarray, vectors: np.ndarray, kind: str) -> None:
    if (
        names.dtype.kind != kind
        or vectors.dtype != np.float16
        or vectors.ndim != 2
        or names.shape != vectors.shape[:1]
    ):
        raise ValueError(f"{names.shape} {names.dtype} names of {vectors.dtype} {vectors.shape}")
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    if not (np.abs(norms - 1) < _MAX_NORM_ERROR).all():
        raise ValueError("vectors that are not of length 1")


def _turns(held: Held, is_new: np.ndarray) -> np.ndarray:
    """int64 (N + 1,): when a row asks; rows that are not new never do, what is no row already has.

    A pair is looked at when the first of the two asks.
    """
    turns = np.full(len(is_new) + 1, len(is_new))
    turns[-1] = -1
    order = np.concatenate([np.empty(0, np.int64), *(places for _, places in held)])
    order = order[order >= 0]
    order = order[is_new[order]]
    turns[order] = np.arange(len(order))
    return turns


def _groups(held: Held, is_new: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(new rows, their vectors), of some files at a time."""
    rows, vectors = [], []
    for number, (file, places) in enumerate(held, start=1):
        here = np.flatnonzero((places >= 0) & is_new[places])
        if len(here):
            rows.append(places[here])
            vectors.append(_vectors(file)[here])
        if rows and (number == len(held) or sum(map(len, rows)) >= _ASKING_ROWS):
            yield np.concatenate(rows), np.concatenate(vectors)
            rows, vectors = [], []


def _vectors(file: Path) -> np.ndarray:
    """float32 (N, D), of numbers that float16 holds."""
    with np.load(file, allow_pickle=False) as values:
        return values["vectors"].astype(np.float32)
