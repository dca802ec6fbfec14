"""Reading the teacher cache as training samples.

In: the folder of each view. Out: for each split, numbered items (record, slot) with latents, text,
regenerated noise, timestep and the teacher's outputs. Parts are merged in the order of keys, so
what a training sees does not depend on how data was divided. Records of the split test are
refused, and damage is found before a record is used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillery.core.errors import DamagedError, DistilleryError
from distillery.data.loader import SPLITS
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.noise import noise_batch, timestep
from distillery.teacher.cache.files import (
    BASE,
    CACHED_SPLITS,
    TEXT_SHARDS,
    CacheMeta,
    RecordTable,
    open_records,
)


@dataclass(frozen=True)
class _Part:
    """Tables of one part; rows of `base` and of every view are the same records."""

    base: RecordTable
    texts: RecordTable
    views: dict[str, RecordTable]


class TeacherCache:
    """The views `base` and `views`, each a folder of parts; `views` by their names.

    `num_train_timesteps` is the teacher's. Raises DistilleryError for a view that is missing, made
    with other settings or of other records, and for a record of the split test.
    """

    def __init__(self, base: Path, views: Mapping[str, Path], num_train_timesteps: int) -> None:
        self.base, folders = base, {BASE: base, **views}
        parts = _part_names(base, BASE)
        for view, folder in views.items():
            _require_same_parts(folder, view, parts)
        self.meta = _common(
            {f / part: CacheMeta.read(f / part) for part in parts for f in folders.values()}
        )
        for view, folder in folders.items():
            _require_view(folder / parts[0], view)
        self.num_train_timesteps = num_train_timesteps
        filled = _filled_parts(base, parts)
        self._parts = [_open_part(base / p, {v: f / p for v, f in views.items()}) for p in filled]
        self._index = _index(base, self._parts)
        for name, part in zip(filled, self._parts, strict=True):
            _require_splits(base / name, part.base)

    def samples(self, split: str) -> "CachedSamples":
        """All items of `train` or `val`."""
        return CachedSamples(self, self._index[split])

    def empty(self) -> dict[str, Tensor]:
        """The empty caption's conditioning, float32: `text` [1, length, width]."""
        return {TEXT: _stack([self._parts[0].texts.row(0)["embedding"]])}


class CachedSamples:
    """Items of one split: item i is slot i % k of record i // k, records in the order of keys."""

    def __init__(self, cache: TeacherCache, places: np.ndarray) -> None:
        self._cache, self._places = cache, places

    def __len__(self) -> int:
        return len(self._places) * self._cache.meta.num_slots

    def keys(self) -> list[str]:
        """Of the records, in order."""
        return [self._cache._parts[n].base.keys[row] for n, row in self._places.tolist()]

    def having(self, wanted: Callable[[str], bool]) -> "CachedSamples":
        """The items of those records whose key is wanted."""
        chosen = [place for place, key in enumerate(self.keys()) if wanted(key)]
        return CachedSamples(self._cache, self._places[chosen])

    def batch(self, items: Sequence[int] | np.ndarray) -> Batch:
        """Items by number. Cost per item at 64 px, 16 channels: 0.1 ms, half of it noise."""
        meta = self._cache.meta
        rows = [self._row(int(item) // meta.num_slots) for item in items]
        slots = [int(item) % meta.num_slots for item in items]
        keys = [row["key"] for row in rows]
        latents = _stack([row["latents"] for row in rows])
        views = rows[0]["views"] if rows else {}
        return Batch(
            keys=keys,
            latents=latents,
            noise=noise_batch(meta.seed, keys, slots, latents.shape[1:]),
            timesteps=self._timesteps(keys, slots),
            conditioning={TEXT: _stack([row[TEXT] for row in rows])},
            outputs={
                view: _stack([row["views"][view][s] for row, s in zip(rows, slots, strict=True)])
                for view in views
            },
        )

    def _row(self, record: int) -> dict:
        number, row = self._places[record].tolist()
        part = self._cache._parts[number]
        base = part.base.row(row)
        return {
            "key": part.base.keys[row],
            "latents": base["latents"],
            TEXT: part.texts.row(int(base["text_index"]))["embedding"],
            "views": {view: table.row(row)["output"] for view, table in part.views.items()},
        }

    def _timesteps(self, keys: list[str], slots: list[int]) -> Tensor:
        meta, total = self._cache.meta, self._cache.num_train_timesteps
        drawn = [
            timestep(meta.seed, key, slot, meta.num_slots, total)
            for key, slot in zip(keys, slots, strict=True)
        ]
        return torch.tensor(drawn, dtype=torch.int64)


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32, copy=False))


def _part_names(folder: Path, view: str) -> list[str]:
    parts = [p.name for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    if not parts:
        raise DistilleryError(
            f"{folder}: not found; add {view} to cache_teacher.views and run cache_teacher"
        )
    return sorted(parts, key=int)


def _filled_parts(base: Path, parts: list[str]) -> list[str]:
    """Parts only say how work is divided: those without a record to train on are passed over."""
    counts = {part: CacheMeta.read(base / part).counts for part in parts}
    filled = [part for part in parts if any(counts[part][split] for split in CACHED_SPLITS)]
    if not filled:
        raise DistilleryError(
            f"{base}: no record of split train or val; see the counts in data/selection/funnel.json"
        )
    return filled


def _require_same_parts(folder: Path, view: str, wanted: list[str]) -> None:
    parts = _part_names(folder, view)
    if parts != wanted:
        raise DistilleryError(
            f"{folder}: has parts {', '.join(parts)}, but {BASE} has {', '.join(wanted)}; "
            "rerun cache_teacher"
        )


def _common(metas: dict[Path, CacheMeta]) -> CacheMeta:
    first, *others = metas
    for folder in others:
        mine, theirs = metas[first].settings(), metas[folder].settings()
        if different := [name for name in mine if mine[name] != theirs[name]]:
            name = different[0]
            raise DistilleryError(
                f"{folder}: view {metas[folder].view} has {name} {theirs[name]}, "
                f"{metas[first].view} in {first} has {mine[name]}; rerun cache_teacher"
            )
    return metas[first]


def _require_view(folder: Path, wanted: str) -> None:
    """A folder may have any name; what it holds is what it says."""
    if (view := CacheMeta.read(folder).view) != wanted:
        raise DistilleryError(f"{folder}: holds the view {view}, not {wanted}; give that one's")


def _open_part(base: Path, views: Mapping[str, Path]) -> _Part:
    table, tables = open_records(base), {view: open_records(f) for view, f in views.items()}
    for view, other in tables.items():
        if other.keys != table.keys:
            raise DistilleryError(
                f"{views[view]}: holds other records than {base}; rerun cache_teacher"
            )
    return _Part(table, open_records(base, TEXT_SHARDS), tables)


def _require_splits(folder: Path, base: RecordTable) -> None:
    """Check the one array that is used before its records are: it must add up to the counts."""
    counts, codes = CacheMeta.read(folder).counts, base.column("split").tolist()
    if any(codes.count(SPLITS.index(split)) != counts[split] for split in CACHED_SPLITS):
        for index in range(len(base)):
            base.row(index)  # names the damaged record
        raise DamagedError(f"{folder}: splits do not add up to cache.json; rerun cache_teacher")


def _index(base: Path, parts: list[_Part]) -> dict[str, np.ndarray]:
    """(part, row) [n, 2] by split, in the order of keys; a key twice or in `test` is refused."""
    keys = np.array([key for part in parts for key in part.base.keys])
    places = np.array([(n, row) for n, part in enumerate(parts) for row in range(len(part.base))])
    codes = np.concatenate([part.base.column("split") for part in parts])
    allowed = np.isin(codes, [SPLITS.index(split) for split in CACHED_SPLITS])
    if not allowed.all():
        first = int(np.argmin(allowed))
        split = dict(enumerate(SPLITS)).get(int(codes[first]), "unknown")
        raise DistilleryError(
            f"{base}: record {keys[first]} is of split {split}, which no training may see; "
            "rerun cache_teacher"
        )
    if len(np.unique(keys)) != len(keys):
        raise DistilleryError(f"{base}: a key is there twice; rerun ingest and curate")
    order = np.argsort(keys, kind="stable")
    return {split: places[order[codes[order] == SPLITS.index(split)]] for split in CACHED_SPLITS}
