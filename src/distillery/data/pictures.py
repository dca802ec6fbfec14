"""Many images, decoded a few at a time.

In: encoded images of known keys, or image files. Out: `Pictures`, which gives uint8 arrays for
slices. Encoded bytes wait in a temporary file without a name (in TMPDIR), not in memory: 30,000
images of 512 px are 23.6 GB decoded and some 3 GB encoded. Not here: what is done with the images.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillery.core.errors import DamagedError


class Spool:
    """Bytes by key in a temporary file, which is gone when this object is."""

    def __init__(self) -> None:
        # Unbuffered: what is put is there for `get`, which moves no position and so is thread-safe.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as this is)
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`; the last one put under a key counts."""
        self._file.write(data)
        self._places[key] = (self._end, len(data))
        self._end += len(data)

    def get(self, key: str) -> bytes:
        """What was put; raises KeyError."""
        start, size = self._places[key]
        return os.pread(self._file.fileno(), size, start)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def keys(self) -> set[str]:
        """All keys."""
        return set(self._places)


@dataclass(frozen=True)
class Pictures:
    """Equally large images in the order of `keys`; a slice is uint8 RGB [n, H, W, 3]."""

    spool: Spool
    keys: Sequence[str]
    decode: Callable[[bytes], np.ndarray]
    change: Callable[[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice | Sequence[int]) -> np.ndarray:
        """Raises DamagedError for images of different sizes."""
        keys = self.keys[part] if isinstance(part, slice) else [self.keys[i] for i in part]
        images = [self.decode(self.spool.get(key)) for key in keys]
        if len({image.shape for image in images}) > 1:
            raise DamagedError("generated images differ in size; run generate again")
        stacked = np.stack(images)
        return stacked if self.change is None else self.change(stacked)

    def through(self, change: Callable[[np.ndarray], np.ndarray]) -> "Pictures":
        """The same images, each slice of them changed by a function of [n, H, W, 3]."""
        return replace(self, change=change)


def slices(length: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` places."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
