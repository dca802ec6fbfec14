"""How much faster training from the teacher cache is than asking the teacher, in the same run.

    PYTHONPATH=src python benchmarks/cache_vs_online.py --teacher data/scenes-sd

One student (the low-rank U-Net), one batch size, one device; forward and backward pass, no
optimiser, which is the same for all. Three sources of what the student learns from:
cache     latents, text embeddings and teacher outputs read from the cache
teacher   latents and text embeddings from the cache, the teacher's U-Net asked
all       image decoded, VAE, text encoder and the teacher's U-Net asked
Prints milliseconds per sample, the ratio to `cache` with its interval over rounds, and the cache's
share spent on reading.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import ratio_text, time_ways

from distillery.core.run import Run
from distillery.data.loader import Record, load_image
from distillery.diffusion.batch import Batch
from distillery.diffusion.objectives import Diffusion, DistillOutput, cached_output, online_output
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.teacher.cache.read import CachedSamples, TeacherCache
from distillery.teacher.cache.size import CachePlan
from distillery.teacher.cache.views import View
from distillery.teacher.cache.write import write_base, write_view
from distillery.teacher.load import (
    Teacher,
    alphas_cumprod,
    encode_images,
    encode_prompts,
    load_teacher,
)

NUM_SLOTS = 4


def make_records(count: int, size_px: int) -> list[Record]:
    """Noise images with captions of their own."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)
    records = []
    for number, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        caption = f"a large red circle number {number}"
        records.append(Record(f"{number:06d}", 0, "train", "c", caption, file.getvalue()))
    return records


def write_cache(folder: Path, records: list[Record], teacher: Teacher, plan: CachePlan) -> None:
    """The views base and cond of one part."""
    base, cond = folder / "base" / "0", folder / "cond" / "0"
    for part in (base, cond):
        part.parent.mkdir(parents=True)
    write_base(lambda: records, teacher, base, plan, Run("base", "", folder / "work"))
    view = View("cond", online_output(teacher.unet))
    write_view(view, base, teacher, cond, plan, Run("cond", "", folder / "work"))


def read_everything(
    items: np.ndarray, batch: Batch, records: list[Record], teacher: Teacher, resolution_px: int
) -> Batch:
    """The same batch with its images and captions decoded and encoded anew, as without a cache."""
    chosen = [records[item // NUM_SLOTS] for item in items]
    images = np.stack([load_image(r.image_bytes, resolution_px) for r in chosen])
    text = encode_prompts(teacher, [r.caption for r in chosen]).float()
    latents = encode_images(teacher, images).float()
    return replace(batch, latents=latents, conditioning={"text": text})


def time_sources(
    records: list[Record], samples: CachedSamples, teacher: Teacher, args: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Seconds per step of each source, and of reading alone, in every round."""
    device = teacher.unet.device
    ranks = plan_ranks(teacher.unet, "ratio")
    student = factorise_unet(teacher.unet, ranks)[0].float().requires_grad_(True).train()
    diffusion = Diffusion.create(
        alphas_cumprod(teacher.scheduler),
        teacher.prediction_type,
        space="native",
        kind="constant",
        gamma=5.0,
    )
    ask = online_output(teacher.unet)
    draws = np.random.default_rng(1)

    def read() -> tuple[np.ndarray, Batch]:
        items = draws.integers(0, len(samples), args.batch_size)
        return items, samples.batch(items).to(device)

    def learn(batch: Batch, source: Callable) -> None:
        terms = DistillOutput(diffusion, source)(student, batch)
        sum(terms.values()).backward()
        student.zero_grad()

    def from_everything() -> None:
        items, batch = read()
        learn(read_everything(items, batch, records, teacher, args.resolution_px), ask)

    steps = {
        "reading": read,
        "cache": lambda: learn(read()[1], cached_output("cond")),
        "teacher": lambda: learn(read()[1], ask),
        "all": from_everything,
    }
    return time_ways(steps, args.steps, device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=Path("data/scenes-sd"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--resolution-px", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--num-threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    teacher = load_teacher(args.teacher, args.device, getattr(torch, args.dtype))
    records = make_records(args.num_images, args.resolution_px)
    plan = CachePlan(args.dtype, NUM_SLOTS, 0, args.resolution_px, 256, args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        write_cache(Path(folder), records, teacher, plan)
        num_steps, root = len(teacher.scheduler.alphas_cumprod), Path(folder)
        samples = TeacherCache(root / "base", {"cond": root / "cond"}, num_steps).samples("train")
        seconds = time_sources(records, samples, teacher, args)
    for name in ("cache", "teacher", "all"):
        each, ratio = np.median(seconds[name]), ratio_text(seconds[name], seconds["cache"])
        print(f"{name:8} {each / args.batch_size * 1e3:8.3f} ms/sample  {ratio}")
    reading = np.median(seconds["reading"] / seconds["cache"])
    print(f"reading  {reading:8.1%} of a step from the cache")


if __name__ == "__main__":
    main()
