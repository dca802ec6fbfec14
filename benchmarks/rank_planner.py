"""Three ways to spend the same parameters on the scenes teacher's U-Net, before any training.

Prints, for each target, the uniform rule (one ratio), allocation by the weights' spectra, and
allocation by the outputs' spectra with data-aware factors: the predicted error (mean share of each
layer's energy discarded, of its own spectra), the actual one (squared distance of the student's
prediction to the teacher's over its energy, on inputs that no plan has seen), and the ratio of the
actual one to the uniform rule's. The uniform plan with data-aware factors tells both effects apart.

Usage: python benchmarks/rank_planner.py [--teacher data/scenes-sd] [--shares 0.44 0.6]
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.data.scenes.draw import draw_scene
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.models.layers import layer_shapes
from distillery.models.lowrank import planner
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.moments import collect_second_moments
from distillery.teacher.load import (
    alphas_cumprod,
    encode_images,
    encode_prompts,
    load_teacher,
)

BATCH_SIZE = 64
Inputs = list[dict[str, Tensor]]


def make_inputs(folder: Path, num_scenes: int, seed: int) -> tuple[UNet2DConditionModel, Inputs]:
    """The teacher's U-Net and its inputs for `num_scenes` new scenes, at stratified timesteps."""
    teacher = load_teacher(folder, "cpu", torch.float32)
    scenes = [draw_scene(seed, index) for index in range(num_scenes)]
    latents = encode_images(teacher, np.stack([scene.image for scene in scenes]))
    text = encode_prompts(teacher, [scene.caption for scene in scenes])
    generator = torch.Generator().manual_seed(seed)
    alpha_bar = alphas_cumprod(teacher.scheduler)
    steps = (torch.arange(num_scenes) * 997) % len(alpha_bar)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = add_noise(latents, noise, *alpha_sigma(alpha_bar, steps))
    inputs = [
        {"sample": a, "timestep": b, "encoder_hidden_states": c}
        for a, b, c in zip(*(t.split(BATCH_SIZE) for t in (noisy, steps, text)), strict=True)
    ]
    return teacher.unet, inputs


@torch.no_grad()
def distance(student: UNet2DConditionModel, teacher: UNet2DConditionModel, inputs: Inputs) -> float:
    """Squared distance of predictions over the teacher's energy."""
    error = energy = 0.0
    for batch in inputs:
        wanted = teacher(**batch).sample
        error += float((student(**batch).sample - wanted).square().sum())
        energy += float(wanted.square().sum())
    return error / energy


def compare(
    unet: UNet2DConditionModel, seen: Inputs, unseen: Inputs, share: float, report: Callable
) -> None:
    """All four plans at `share` of the U-Net's parameters."""
    shapes = layer_shapes(unet)
    names = planner.factorable(shapes)
    costs = {n: c for n, c in planner.parameter_costs(shapes).items() if n in names}
    num_all = sum(p.numel() for p in unet.parameters())
    budget = share * num_all - num_all + sum(cost.dense for cost in costs.values())
    moments = collect_second_moments(unet, seen, names=names)
    of_weights = planner.weight_spectra(unet, names)
    of_outputs = planner.output_spectra(unet, moments)
    uniform = planner.uniform_ranks(shapes, costs, budget)
    plans: dict[str, tuple[Mapping, Mapping, str]] = {
        "uniform": (uniform, of_weights, "svd"),
        "uniform, data-aware": (uniform, of_outputs, "data_aware"),
        "spectrum": (planner.allocate(of_weights, costs, budget), of_weights, "svd"),
        "spectrum, data-aware": (
            planner.allocate(of_outputs, costs, budget), of_outputs, "data_aware",
        ),
    }  # fmt: skip
    first = None
    for name, (ranks, spectra, init) in plans.items():
        student, _ = factorise_unet(unet, ranks, init, moments=moments)
        actual = distance(student, unet, unseen)
        first = first or actual
        predicted = planner.predicted_error(spectra, ranks) / len(names)
        count = sum(p.numel() for p in student.parameters())
        report(f"{name:<22}{count:>10}{predicted:>11.4f}{actual:>10.4f}{actual / first:>8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=Path("data/scenes-sd"))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.44, 0.6])
    parser.add_argument("--num_scenes", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    unet, seen = make_inputs(arguments.teacher, arguments.num_scenes, seed=1)
    _, unseen = make_inputs(arguments.teacher, arguments.num_scenes, seed=2)
    for share in arguments.shares:
        print(f"{share:.0%} of the teacher's parameters")
        print(f"{'plan':<22}{'params':>10}{'predicted':>11}{'actual':>10}{'ratio':>8}")
        compare(unet, seen, unseen, share, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
