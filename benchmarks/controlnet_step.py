"""How much faster a step of ControlNet distillation is from the teacher cache, in the same run.

    PYTHONPATH=src python benchmarks/controlnet_step.py --teacher data/scenes-sd
    PYTHONPATH=src python benchmarks/controlnet_step.py --arch sd21 --resolution-px 128 \\
        --batch-size 1 --num-images 1 --steps 3 --students distilled reduced_layer

`--arch` takes random weights at Stable Diffusion's real shapes, with VAE and text encoder.
One student, one batch size, one device; forward and backward pass, no optimiser, which is the same
for all.
reference  as diffusers' examples/controlnet/train_controlnet.py: image decoded, VAE and text
           encoder asked; beside them the teacher: its ControlNet, and the U-Net under it
cache      latents, text and the U-Net's output under the teacher read; its ControlNet asked
residuals  as cache, and the ControlNet's residuals read too
Prints milliseconds per sample and how many times faster than `reference` each is, with its interval
over rounds.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cache_vs_online import NUM_SLOTS, make_records
from teachers import add_options, open_controlnet, open_teacher
from timing import ratio_text, time_ways
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from distillery.core.progress import bar
from distillery.core.run import Run
from distillery.core.shards import write_table_shard
from distillery.data.conditions.annotate import CONDITION_SCHEMA, encode_png
from distillery.data.conditions.canny import canny_map
from distillery.data.conditions.reader import ConditionMaps
from distillery.data.loader import Record, load_image
from distillery.diffusion.control import ControlTeacher, num_residuals, online_residuals
from distillery.diffusion.controlnet import DistillControlNet, Factors
from distillery.diffusion.layerwise import Layerwise
from distillery.diffusion.objectives import Diffusion
from distillery.families.controlnet.residuals import cached_residuals, write_residuals
from distillery.models.student_controlnet.model import PRESETS, build_student
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.cache.size import CachePlan
from distillery.teacher.cache.views import View
from distillery.teacher.cache.write import write_base, write_view
from distillery.teacher.load import Teacher, alphas_cumprod
from distillery.train.loop import Place
from distillery.train.sources import ConditionedSamples

KIND = "canny"
VIEW = f"control_{KIND}"
Step = Callable[[np.ndarray], Tensor]


def write_data(
    root: Path, records: list[Record], teacher: Teacher, theirs: nn.Module, plan: CachePlan
) -> ConditionMaps:
    """Canny maps, and the views base and control_canny of one part, below `root`."""
    images = [load_image(record.image_bytes, plan.resolution_px) for record in records]
    rows = [
        {"key": record.key, "image": {"bytes": encode_png(canny_map(image)), "path": None}}
        for record, image in zip(records, images, strict=True)
    ]
    (root / "conditions" / "0" / KIND).mkdir(parents=True)
    write_table_shard(root / "conditions/0" / KIND / "00000.parquet", rows, CONDITION_SCHEMA)
    maps = ConditionMaps(root / "conditions", [KIND], plan.resolution_px)
    base, view = root / "cache/base/0", root / "cache" / VIEW / "0"
    for part in (base, view):
        part.parent.mkdir(parents=True)
    write_base(lambda: records, teacher, base, plan, Run("base", "base", root / "work"))
    ask = ControlTeacher(teacher.unet, online_residuals(theirs, KIND), view=None).output
    opened = View(VIEW, ask, maps)
    write_view(opened, base, teacher, view, plan, Run(VIEW, VIEW, root / "work"))
    return maps


def reference_step(
    records: list[Record], maps: ConditionMaps, teacher: Teacher, theirs: nn.Module, mine: nn.Module
) -> Step:
    """The loss of one step as a script around diffusers computes it."""
    unet, device = teacher.unet, teacher.unet.device
    size_px = maps.images(KIND, [records[0].key]).shape[1]

    def under(net: nn.Module, noisy: Tensor, steps: Tensor, text: Tensor, hint: Tensor) -> tuple:
        down, mid = net(noisy, steps, text, controlnet_cond=hint, return_dict=False)
        output = unet(
            noisy,
            steps,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        return output, [*down, mid]

    def loss(items: np.ndarray) -> Tensor:
        chosen = [records[item // NUM_SLOTS] for item in items]
        images = np.stack([load_image(r.image_bytes, size_px) for r in chosen])
        hint = maps.batch([r.key for r in chosen])[KIND].to(device, unet.dtype)
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).to(unet.dtype) / 127.5 - 1
        tokens = teacher.tokenizer(
            [r.caption for r in chosen], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids.to(device)
        with torch.no_grad():
            latents = teacher.vae.encode(pixels).latent_dist.sample()
            latents = latents * teacher.vae.config.scaling_factor
            text = teacher.text_encoder(tokens)[0]
        noise = torch.randn_like(latents)
        steps = torch.randint(len(teacher.scheduler.alphas_cumprod), (len(items),), device=device)
        noisy = teacher.scheduler.add_noise(latents, noise, steps)
        with torch.no_grad():
            wanted, layers = under(theirs, noisy, steps, text, hint)
        output, given = under(mine, noisy.float(), steps, text.float(), hint.float())
        target = noise
        if teacher.prediction_type == "v_prediction":
            target = teacher.scheduler.get_velocity(latents, noise, steps)
        kd = [
            mse_loss(g.float(), t.float()) / t.float().var()
            for g, t in zip(given, layers, strict=True)
        ]
        output = output.float()
        return mse_loss(output, target.float()) + mse_loss(output, wanted.float()) + sum(kd)

    return loss


def cached_step(
    samples: ConditionedSamples, teacher: Teacher, residuals: Callable, mine: nn.Module
) -> Step:
    """The loss of one step as `distill_controlnet` computes it."""
    layerwise = Layerwise(mine, num_residuals(teacher.unet), "teacher", "sample")
    asked = ControlTeacher(teacher.unet, residuals, VIEW)
    objective = DistillControlNet(KIND, diffusion_of(teacher), asked, Factors(1, 1, 1), layerwise)

    def loss(items: np.ndarray) -> Tensor:
        batch = samples.batch(items).to(teacher.unet.device)
        return sum(objective(mine, batch).values())

    return loss


def diffusion_of(teacher: Teacher) -> Diffusion:
    """Constant weights in the teacher's own space."""
    return Diffusion.create(
        alphas_cumprod(teacher.scheduler),
        teacher.prediction_type,
        space="native",
        kind="constant",
        gamma=5.0,
    )


def training(step: Step, mine: nn.Module, num_items: int, batch_size: int) -> Callable[[], None]:
    """Forward and backward pass of one kind of step; all kinds draw the same items."""
    draws = np.random.default_rng(1)

    def run() -> None:
        step(draws.integers(0, num_items, batch_size)).backward()
        mine.zero_grad()

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution-px", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--students", nargs="+", default=["original", "reduced_layer", "distilled"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    teacher = open_teacher(args)
    controlnet = open_controlnet(args, KIND, teacher.unet)
    records = make_records(args.num_images, args.resolution_px)
    plan = CachePlan("float32", NUM_SLOTS, 0, args.resolution_px, 256, args.batch_size)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        maps = write_data(root, records, teacher, controlnet, plan)
        num_timesteps = len(teacher.scheduler.alphas_cumprod)
        cache = TeacherCache(root / "cache/base", {VIEW: root / "cache" / VIEW}, num_timesteps)
        samples = ConditionedSamples(cache.samples("train"), maps)
        ask = online_residuals(controlnet, KIND)
        place = Place(
            teacher.unet.device, root / "residuals",
            lambda total, **options: bar(total, options["what"]),
        )  # fmt: skip
        write_residuals(place, [samples], ask, diffusion_of(teacher), 10**12)
        read = cached_residuals(root / "residuals")
        for student in args.students:
            mine = build_student(controlnet, PRESETS[student], seed=0).requires_grad_(True).train()
            steps = {
                "reference": reference_step(records, maps, teacher, controlnet, mine),
                "cache": cached_step(samples, teacher, ask, mine),
                "residuals": cached_step(samples, teacher, read, mine),
            }
            ways = {
                kind: training(step, mine, len(samples), args.batch_size)
                for kind, step in steps.items()
            }
            seconds = time_ways(ways, args.steps, mine.device)
            for kind, values in seconds.items():
                each = np.median(values) / args.batch_size * 1e3
                faster = ratio_text(seconds["reference"], values)
                print(f"{student:16} {kind:10} {each:8.3f} ms/sample  {faster}")


if __name__ == "__main__":
    main()
