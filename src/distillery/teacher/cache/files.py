"""How a teacher cache lies on disk, and reading single records of it.

    <root>/<view>/<part>/cache.json           what the view is: `CacheMeta`
    <root>/<view>/<part>/00000.safetensors    records, the same keys in every view
    <root>/base/<part>/text-00000.safetensors distinct captions' embeddings; row 0: empty caption

`base` records: `latents` [C, h, w] (scaled), `text_index`, `split` (place in `loader.SPLITS`).
Records of other views: `output` [k, C, h, w], the teacher's native output at k slots, and
`timesteps` [k].
Not here: making or using them.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from distillery.core.artifacts import read_json, write_json
from distillery.core.errors import DamagedError, DistilleryError
from distillery.core.shards import hash_slices, read_records

BASE = "base"
META = "cache.json"
CACHED_SPLITS = ("train", "val")
TEXT_SHARDS = "text-[0-9]*.safetensors"
RECORD_SHARDS = "[0-9]*.safetensors"


@dataclass(frozen=True)
class CacheMeta:
    """What one view of one part is; views of one cache must agree on all but the counts."""

    view: str
    prediction_type: str
    dtype: str
    num_slots: int
    seed: int
    resolution_px: int
    counts: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write `cache.json`."""
        write_json(folder / META, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "CacheMeta":
        """Read `cache.json`; raises DistilleryError if it is missing or of another format."""
        values = read_json(folder / META, remedy="rerun cache_teacher")
        try:
            return cls(**values)
        except TypeError:
            raise DistilleryError(f"{folder / META}: unknown format; rerun cache_teacher") from None

    def settings(self) -> dict[str, Any]:
        """What must be equal in all views and parts."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name not in ("view", "counts")}


class RecordTable:
    """Records of several shards, mapped from disk, each checked against its hash at first use.

    So memory stays small at any size, and damage is an error before the bytes are used. Cost: 5 us
    a record and array, at first use the sha256 besides (1 ms/MB).
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shards = [_Shard(path) for path in paths]
        self._starts = np.cumsum([0, *(len(shard.keys) for shard in self._shards)])
        self._checked = np.zeros(len(self), dtype=bool)
        self.keys = [key for shard in self._shards for key in shard.keys]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one record, without the record axis; raises DamagedError naming it."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, row = self._shards[number], index - int(self._starts[number])
        values = shard.read(row)
        if not self._checked[index]:
            key, arrays = shard.keys[row], {n: v[None] for n, v in values.items()}
            if hash_slices(arrays, 0, key) != shard.hashes[row]:
                raise DamagedError(f"{shard.path}: record {key} is damaged; rerun cache_teacher")
            self._checked[index] = True
        return values

    def column(self, name: str) -> np.ndarray:
        """One small array of all records, not checked: that is done when a row is read."""
        return np.concatenate([shard.arrays[name][:] for shard in self._shards])


class _Shard:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="np")
            self.keys, self.hashes = read_records(self._file.metadata())
            self.arrays = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path}: unreadable ({error}); rerun cache_teacher") from None

    def read(self, row: int) -> dict[str, np.ndarray]:
        return {name: array[row : row + 1][0] for name, array in self.arrays.items()}


def open_records(folder: Path, pattern: str = RECORD_SHARDS) -> RecordTable:
    """All records of one view and part; an empty folder is an error."""
    if not (paths := sorted(folder.glob(pattern))):
        raise DamagedError(f"{folder}: no shards; rerun cache_teacher")
    return RecordTable(paths)
