"""Sizes are told before anything is written, and too much is refused."""

import os
from collections import namedtuple
from pathlib import Path

import pytest

from cache_helpers import PLAN, v_teacher, write_cache, write_curated
from distillery.core.errors import DistilleryError
from distillery.teacher.cache.size import (
    CacheExtent,
    CacheShapes,
    base_bytes,
    cache_shapes,
    require_room,
    view_bytes,
)

CAPTIONS = ["a", "b", "a"]


def _require(teacher: Path, folder: Path, budget_bytes: int) -> str:
    extent = CacheExtent(num_views=1, num_parts=2, budget_bytes=budget_bytes)
    return require_room(CAPTIONS, PLAN, teacher, folder, "cond", extent)


def test_the_estimate_is_near_what_is_written(tiny_teacher: Path, tmp_path: Path) -> None:
    write_curated(tmp_path)
    write_cache(tmp_path, v_teacher(tiny_teacher, tmp_path / "v"), tmp_path / "cache")
    shapes = cache_shapes(tiny_teacher, 64)
    assert shapes == CacheShapes(latent=(16, 8, 8), text=(16, 32))
    base = base_bytes(shapes, "float32", num_records=12, num_texts=14)
    cond = view_bytes(shapes, "float32", num_records=12, num_slots=2)
    for view, estimate in (("base", base), ("cond", cond)):
        shards = (tmp_path / "cache" / view).rglob("*.safetensors")
        assert estimate == pytest.approx(sum(s.stat().st_size for s in shards), rel=0.1)


def test_stable_diffusion_at_512_px_takes_what_the_docs_say() -> None:
    shapes = CacheShapes(latent=(4, 64, 64), text=(77, 1024))
    assert view_bytes(shapes, "float16", num_records=1, num_slots=4) // 1024 == 128
    assert base_bytes(shapes, "float16", num_records=1, num_texts=1) // 1024 == 32 + 154


def test_over_the_budget_is_refused(tiny_teacher: Path, tmp_path: Path) -> None:
    assert "for the whole cache (budget 1.00 GB," in _require(tiny_teacher, tmp_path, 10**9)
    with pytest.raises(DistilleryError, match="over the budget; raise cache_teacher"):
        _require(tiny_teacher, tmp_path, 10**4)


def test_over_the_free_space_is_refused(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**6, 10**6, 100))
    with pytest.raises(DistilleryError, match="over the free space"):
        _require(tiny_teacher, tmp_path / "not" / "there", 10**9)
    assert os.listdir(tmp_path) == []


def test_a_size_the_vae_cannot_take_is_refused(tiny_teacher: Path) -> None:
    with pytest.raises(DistilleryError, match="not a multiple of 8"):
        cache_shapes(tiny_teacher, 60)
