"""Sketches and thumbnails of curated rows, in files.

In: the curated folders. Out: arrays in the order of the rows asked for, read when they are looked
at: 1.1 KiB and 12 KiB per image lie on disk, not in memory. A full disk is an error and no crash.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core.shards import iter_rows_at
from distillery.data.dedupe.rows import Rows, curated_shards
from distillery.data.dedupe.thumbnails import SIDE_PX, thumbnail
from distillery.data.dedupe.windows import SKETCH_BYTES
from distillery.data.images import decode_rgb


class StoredArray:
    """uint8 (N, ...) in a file: an item, a slice or an array of items becomes an array."""

    def __init__(self, path: Path, num_items: int, shape: tuple[int, ...]) -> None:
        self._file = path.open("rb", buffering=0)
        self._num_items, self._shape = num_items, shape
        self._num_bytes = int(np.prod(shape))

    def __len__(self) -> int:
        return self._num_items

    def __getitem__(self, items: Any) -> np.ndarray:
        if isinstance(items, slice):
            start, stop, _ = items.indices(self._num_items)
            return self._read(start, max(stop - start, 0))
        if np.ndim(items) == 0:
            return self._read(int(items), 1)[0]
        found = np.empty((len(items), *self._shape), np.uint8)
        for place, item in enumerate(np.asarray(items).tolist()):
            found[place] = self._read(item, 1)[0]
        return found

    def _read(self, first: int, num: int) -> np.ndarray:
        data = os.pread(self._file.fileno(), num * self._num_bytes, first * self._num_bytes)
        return np.frombuffer(data, np.uint8).reshape(num, *self._shape)


@dataclass(frozen=True)
class CuratedViews:
    """Views of the rows of curated folders ({part: folder}); files go to `scratch`."""

    folders: Mapping[int, Path]
    scratch: Path

    def sketches(self, rows: Rows) -> StoredArray:
        """uint8 (N, 1152): what curation has made of the images."""
        return self._gather(rows, "sketch", (SKETCH_BYTES,), bytes)

    def thumbnails(self, rows: Rows) -> StoredArray:
        """uint8 (N, 64, 64, 3); the images are decoded, having passed the guarded decoder."""
        return self._gather(rows, "image", (SIDE_PX, SIDE_PX, 3), _thumbnail_bytes)

    def images(self, rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
        """(place among the rows, uint8 (H, W, 3)), in the order in which they are stored."""
        for place, image in self._read(rows, "image"):
            yield place, decode_rgb(image["bytes"])

    def _gather(
        self, rows: Rows, column: str, shape: tuple[int, ...], convert: Callable[[Any], bytes]
    ) -> StoredArray:
        path, num_bytes = self.scratch / f"{column}-views", int(np.prod(shape))
        path.unlink(missing_ok=True)  # an earlier one may be open
        with path.open("wb") as file:
            for place, value in self._read(rows, column):
                file.seek(place * num_bytes)
                file.write(convert(value))
        return StoredArray(path, len(rows), shape)

    def _read(self, rows: Rows, column: str) -> Iterator[tuple[int, Any]]:
        """(place among the rows, value), in the order in which they are stored."""
        order = np.lexsort((rows.numbers, rows.shards))
        paths = [path for _, path in curated_shards(self.folders)]
        ends = np.searchsorted(rows.shards[order], np.arange(len(paths) + 1))
        for path, start, end in zip(paths, ends[:-1], ends[1:], strict=True):
            places = order[start:end]
            values = iter_rows_at(path, column, rows.numbers[places])
            yield from zip(places.tolist(), values, strict=True)


def _thumbnail_bytes(image: Mapping[str, Any]) -> bytes:
    return thumbnail(decode_rgb(image["bytes"])).tobytes()
