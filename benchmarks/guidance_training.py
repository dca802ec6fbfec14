"""Time of a guidance distillation step: everything cached, all but the teacher, nothing cached.

    PYTHONPATH=src python benchmarks/guidance_training.py --teacher data/scenes-sd
    PYTHONPATH=src python benchmarks/guidance_training.py --arch sd15 --resolution-px 128 \\
        --batch-size 1 --num-images 1 --rounds 3 --targets attention

`--arch` takes random weights at Stable Diffusion's real shapes, with VAE and text encoder.
One student (a LoRA on the teacher's own U-Net), one batch size, one device; forward and backward
pass, no optimiser, which is the same for all. Three sources of the guided target:
cache    latents, text embeddings and both outputs of the teacher read from the cache
teacher  latents and text from the cache, the teacher asked (adapters off, both halves in a batch)
all      image decoded, VAE, text encoder and the teacher asked
Interleaved; prints milliseconds per sample and the ratio to `cache` with a bootstrap interval over
rounds. On the CPU processor time is measured, so that other work on the machine counts little.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cache_vs_online import NUM_SLOTS, make_records, read_everything
from teachers import add_options, open_teacher
from timing import ratio_text, time_ways

from distillery.core.run import Run
from distillery.data.loader import Record
from distillery.diffusion.batch import Batch
from distillery.diffusion.guidance import (
    DistillGuided,
    OnlinePair,
    Scales,
    TeacherPair,
    cached_pair,
)
from distillery.diffusion.objectives import Diffusion
from distillery.models.lora.layers import add_lora
from distillery.teacher.cache.read import CachedSamples, TeacherCache
from distillery.teacher.cache.size import CachePlan
from distillery.teacher.cache.views import open_view
from distillery.teacher.cache.write import write_base, write_view
from distillery.teacher.load import (
    Teacher,
    alphas_cumprod,
    encode_prompts,
)


def write_cache(folder: Path, records: list[Record], teacher: Teacher, plan: CachePlan) -> None:
    """The views base, cond and uncond of one part."""
    parts = {view: folder / view / "0" for view in ("base", "cond", "uncond")}
    for part in parts.values():
        part.parent.mkdir(parents=True)
    work = folder / "work"
    write_base(lambda: records, teacher, parts["base"], plan, Run("base", "", work))
    for view in ("cond", "uncond"):
        opened = open_view(view, teacher, folder)
        write_view(opened, parts["base"], teacher, parts[view], plan, Run(view, "", work))


def make_steps(
    records: list[Record], samples: CachedSamples, teacher: Teacher, args: argparse.Namespace
) -> dict[str, Callable[[], None]]:
    """The three kinds of step; each ends with the student's gradients."""
    student = add_lora(teacher.unet, r=16, alpha=16, targets=args.targets, seed=0).train()
    if args.gradient_checkpointing:
        student.enable_gradient_checkpointing()
    diffusion = Diffusion.create(
        alphas_cumprod(teacher.scheduler),
        teacher.prediction_type,
        space="native",
        kind="constant",
        gamma=5.0,
    )
    empty = {"text": encode_prompts(teacher, [""]).float()}
    ask = OnlinePair(student, empty, batched=True, shared=True)
    draws = np.random.default_rng(1)

    def read() -> tuple[np.ndarray, Batch]:
        items = draws.integers(0, len(samples), args.batch_size)
        return items, samples.batch(items).to(student.device)

    def learn(batch: Batch, source: TeacherPair) -> None:
        objective = DistillGuided(diffusion, source, Scales(3.0, 3.0))
        with torch.autocast(student.device.type, torch.bfloat16, enabled=args.bf16):
            loss = objective(student, batch)["output"]
        loss.backward()
        student.zero_grad()

    def from_everything() -> None:
        items, batch = read()
        learn(read_everything(items, batch, records, teacher, args.resolution_px), ask)

    return {
        "cache": lambda: learn(read()[1], cached_pair),
        "teacher": lambda: learn(read()[1], ask),
        "all": from_everything,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--targets", choices=["attention", "all"], default="all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--resolution-px", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--num-threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    teacher = open_teacher(args)
    records = make_records(args.num_images, args.resolution_px)
    plan = CachePlan("float32", NUM_SLOTS, 0, args.resolution_px, 256, args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        write_cache(Path(folder), records, teacher, plan)
        num_steps, root = len(teacher.scheduler.alphas_cumprod), Path(folder)
        views = {view: root / view for view in ("cond", "uncond")}
        samples = TeacherCache(root / "base", views, num_steps).samples("train")
        steps = make_steps(records, samples, teacher, args)
        seconds = time_ways(steps, args.rounds, torch.device(args.device))
    for name, values in seconds.items():
        each, ratio = np.median(values) / args.batch_size, ratio_text(values, seconds["cache"])
        print(f"{name:8} {each * 1e3:8.3f} ms/sample  {ratio}")


if __name__ == "__main__":
    main()
