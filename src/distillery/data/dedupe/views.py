"""Sketches and thumbnails of curated rows, in files that are mapped.

In: the curated folders. Out: arrays in the order of the rows asked for. 1.1 KiB and 12 KiB per
image lie on disk, not in memory. A file is written, not mapped, so that a full disk is an error
and not a crash.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core.shards import iter_table_shard
from distillery.data.dedupe.compare import SIDE_PX, thumbnail
from distillery.data.dedupe.find import Row
from distillery.data.dedupe.windows import SKETCH_BYTES
from distillery.data.images import decode_rgb


@dataclass(frozen=True)
class CuratedViews:
    """Views of the rows of curated folders ({part: folder}); files go to `scratch`."""

    folders: Mapping[int, Path]
    scratch: Path

    def sketches(self, rows: Sequence[Row]) -> np.ndarray:
        """uint8 (N, 1152): what curation has made of the images."""
        read = self._gather(rows, "sketch", "sketches", SKETCH_BYTES, bytes)
        return read.reshape(len(rows), SKETCH_BYTES)

    def thumbnails(self, rows: Sequence[Row]) -> np.ndarray:
        """uint8 (N, 64, 64, 3); the images are decoded, having passed the guarded decoder."""
        shape = (SIDE_PX, SIDE_PX, 3)
        num_bytes = int(np.prod(shape))
        read = self._gather(rows, "image", "thumbnails", num_bytes, _thumbnail_bytes)
        return read.reshape(len(rows), *shape)

    def _gather(
        self,
        rows: Sequence[Row],
        column: str,
        name: str,
        num_bytes: int,
        convert: Callable[[Any], bytes],
    ) -> np.ndarray:
        position = {row.key: index for index, row in enumerate(rows)}
        path = self.scratch / name
        path.unlink(missing_ok=True)  # an earlier one may be mapped
        with path.open("wb") as file:
            for key, value in self._read(column, position):
                file.seek(position[key] * num_bytes)
                file.write(convert(value))
        if not rows:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r", shape=(len(rows) * num_bytes,))

    def _read(self, column: str, keys: Container[str]) -> Iterator[tuple[str, Any]]:
        for folder in self.folders.values():
            for shard in sorted(folder.glob("[0-9]*.parquet")):
                for row in iter_table_shard(shard, ["key", column], keys):
                    yield row["key"], row[column]


def _thumbnail_bytes(image: Mapping[str, Any]) -> bytes:
    return thumbnail(decode_rgb(image["bytes"])).tobytes()
