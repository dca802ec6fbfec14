"""A tiny teacher with a ControlNet that does something, curated data, maps and a cache of it."""

import io
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from cache_helpers import NUM_RECORDS, PLAN, run, v_teacher, write_cache, write_curated
from distillery.core.shards import shard_name, write_table_shard
from distillery.data.conditions.annotate import CONDITION_SCHEMA
from distillery.data.conditions.reader import ConditionMaps
from distillery.teacher.cache.views import open_view
from distillery.teacher.cache.write import write_view

KIND = "canny"
VIEW = f"control_{KIND}"


def tiny_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """The U-Net's encoder with random, not zero, convolutions at its outputs."""
    torch.manual_seed(5)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
    embedding = controlnet.controlnet_cond_embedding
    zeros = [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]
    for convolution in (*zeros, embedding.conv_out):
        torch.nn.init.normal_(convolution.weight, std=0.1)
    return controlnet.eval()


def write_maps(root: Path) -> None:
    """`root/{0,1}/canny` for the records of `cache_helpers.write_curated`."""
    generator = np.random.default_rng(1)
    rows = {0: [], 1: []}
    for number in range(NUM_RECORDS):
        file = io.BytesIO()
        edges = 255 * (generator.random((64, 64)) < 0.1).astype(np.uint8)
        Image.fromarray(edges).save(file, "PNG")
        image = {"bytes": file.getvalue(), "path": None}
        rows[number % 2].append({"key": f"{number:04d}", "image": image})
    for part, records in rows.items():
        folder = root / str(part) / KIND
        folder.mkdir(parents=True)
        write_table_shard(folder / shard_name(0, "parquet"), records, CONDITION_SCHEMA)


def write_project(root: Path, tiny_teacher: Path) -> None:
    """`root` with `teacher`, `conditions` and `cache` (base and control_canny)."""
    write_curated(root)
    write_maps(root / "conditions")
    teacher = v_teacher(tiny_teacher, root / "teacher")
    tiny_controlnet(teacher.unet).save_pretrained(root / "teacher" / f"controlnet_{KIND}")
    write_cache(root, teacher, root / "cache", views=())
    maps = ConditionMaps(root / "conditions", [KIND], PLAN.resolution_px)
    for part in ("0", "1"):
        opened = open_view(VIEW, teacher, root / "teacher", maps)
        out = root / "cache" / VIEW / part
        out.parent.mkdir(parents=True, exist_ok=True)
        base = root / "cache" / "base" / part
        write_view(opened, base, teacher, out, PLAN, run(root, f"{VIEW}/{part}"))
