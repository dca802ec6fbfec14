"""Curated parts with a selection, small enough to cache in a test, and the calls to do so."""

import functools
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distillery.core.artifacts import hash_json
from distillery.core.run import Run
from distillery.core.shards import shard_name, write_table_shard
from distillery.data.conditions.annotate import CONDITION_SCHEMA
from distillery.data.curation.curate import CURATED_SCHEMA
from distillery.data.dedupe.selection import SELECTION, SELECTION_SCHEMA
from distillery.data.loader import iter_records
from distillery.sampling.samples import encode_png
from distillery.teacher.cache.files import BASE, CACHED_SPLITS
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.cache.size import CachePlan
from distillery.teacher.cache.views import open_view
from distillery.teacher.cache.write import MakeLatents, write_base, write_view
from distillery.teacher.load import Teacher, load_teacher
from distillery.train.seeds import Job
from distillery.train.settings import Settings

SPLITS = ["train", "train", "val", "test", "train"]
NUM_RECORDS = 15
PLAN = CachePlan(dtype="float32", num_slots=2, seed=7, resolution_px=64, shard_size=4, batch_size=4)


def write_curated(root: Path) -> None:
    """`root/curated/{0,1}` and `root/selection`: 15 images, two records to a caption."""
    selection, rows = [], {0: [], 1: []}
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_RECORDS, 64, 64, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        key, part, split = f"{number:04d}", number % 2, SPLITS[number % len(SPLITS)]
        empty = dict.fromkeys(CURATED_SCHEMA.names)
        encoded = {"bytes": file.getvalue(), "path": None}
        caption = "abcdefgh"[number // 2] * 3
        rows[part].append({**empty, "key": key, "image": encoded, "caption": caption})
        selection.append({"key": key, "part": part, "cluster": key, "split": split})
    for part, records in rows.items():
        (root / "curated" / str(part)).mkdir(parents=True)
        write_table_shard(
            root / "curated" / str(part) / shard_name(0, "parquet"), records, CURATED_SCHEMA
        )
    (root / "selection").mkdir()
    write_table_shard(root / "selection" / SELECTION, selection, SELECTION_SCHEMA)


def v_teacher(tiny_teacher: Path, folder: Path) -> Teacher:
    """The tiny teacher with v prediction and zero terminal SNR, copied to `folder`."""
    shutil.copytree(tiny_teacher, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    config |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps(config))
    return load_teacher(folder, "cpu", torch.float32)


def write_cache(
    root: Path,
    teacher: Teacher,
    out: Path,
    views: tuple[str, ...] = ("cond",),
    make_latents: MakeLatents | None = None,
    **changed: Any,
) -> None:
    """Cache both parts of `root` below `out`, resumably from `root/work`."""
    plan = CachePlan(**{**PLAN.__dict__, **changed})
    for part in (0, 1):
        read = functools.partial(
            iter_records, root / "curated", root / "selection", parts=[part], splits=CACHED_SPLITS
        )
        base = out / BASE / str(part)
        base.parent.mkdir(parents=True, exist_ok=True)
        recipe = f"base/{part}/{plan}/{make_latents}"
        write_base(read, teacher, base, plan, run(root, recipe), make_latents)
        for view in views:
            folder = out / view / str(part)
            folder.parent.mkdir(parents=True, exist_ok=True)
            opened = open_view(view, teacher, root)
            write_view(opened, base, teacher, folder, plan, run(root, f"{view}/{part}/{plan}"))


def open_cache(root: Path, *views: str) -> TeacherCache:
    """The cache below `root` with these views."""
    return TeacherCache(root / BASE, {view: root / view for view in views}, 1000)


def run(root: Path, recipe: str) -> Run:
    """A run whose work folder is below `root`."""
    return Run("cache_teacher/test", hash_json(recipe), root / "work")


def job(out: Path, seeds: tuple = (0,), name: str = "", **settings: Any) -> Job:
    """A training on the CPU into `out`, whose work folder is beside it."""
    lesson = run(out.parent, name or out.name)
    return Job(Settings(**settings), seeds, lesson, torch.device("cpu"), out)


def write_maps(root: Path, kind: str, keys: list[str]) -> np.ndarray:
    """Random maps of the records, as `extract_conditions` stores them; returns them."""
    seed = sum(kind.encode())
    images = np.random.default_rng(seed).integers(0, 256, (len(keys), 64, 64, 3), dtype=np.uint8)
    rows = [
        {"key": key, "image": {"bytes": encode_png(image), "path": None}}
        for key, image in zip(keys, images, strict=True)
    ]
    (root / "0" / kind).mkdir(parents=True)
    write_table_shard(root / "0" / kind / "00000.parquet", rows, CONDITION_SCHEMA)
    return images
