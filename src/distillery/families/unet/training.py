"""Stage I of ELR-Diffusion: the starting point of a variant, its objective, its training.

In: the teacher's folder, the decomposed teacher that `init_student` made, the teacher's cache.
Out: one model folder as `seeds` writes it. Not here: the decomposition, the loop.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distillery.diffusion.batch import Batch
from distillery.diffusion.losses import Weighting
from distillery.diffusion.objectives import (
    Denoise,
    Diffusion,
    DistillOutput,
    FeatureDistance,
    Objective,
    TeacherOutput,
    cached_output,
    online_output,
    predict,
)
from distillery.families.about import About
from distillery.models.load import load_unet
from distillery.models.lowrank.removed import removed_in
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel, unet_arguments
from distillery.train.preview import Preview
from distillery.train.seeds import Job, Training, train_seeds
from distillery.train.sources import Sources


@dataclass(frozen=True)
class Distillation:
    """What a student learns from: `objective` `teacher` or `noise`, and how errors are weighted."""

    objective: str
    space: str
    weighting: Weighting
    gamma: float
    lambda_diffusion: float
    lambda_feature: float
    online: bool


def start_student(
    architecture: str, init: str, *, teacher: Path, init_folder: Path, seed: int
) -> UNet2DConditionModel:
    """A variant before its first step; `random` depends on `seed`, the others on the teacher only.

    `init_folder` is the decomposition of this name; that of `random` is the ranks alone. Random
    weights are drawn on the CPU, and leave the global generator as it was. A dense student is
    random: the params refuse others.
    """
    if init != "random":
        return LowRankUNet2DConditionModel.from_pretrained(init_folder)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        if architecture == "dense":
            config = UNet2DConditionModel.load_config(teacher / "unet")
            return UNet2DConditionModel(**unet_arguments(config))
        config = LowRankUNet2DConditionModel.load_config(init_folder)
        ranks, removed = config["ranks"], removed_in(config)
        return LowRankUNet2DConditionModel(**unet_arguments(config), ranks=ranks, removed=removed)


def train_students(
    start: Callable[[int], UNet2DConditionModel],
    distillation: Distillation,
    sources: Sources,
    job: Job,
) -> None:
    """Train `start(seed)` for every seed of the job; reads the views `base` and `cond`."""
    diffusion = sources.diffusion(distillation.weighting, distillation.gamma, distillation.space)
    cache = sources.cache(*([] if distillation.online else ["cond"]))
    data = sources.data(cache)
    teacher = load_unet(sources.teacher, job.device) if distillation.online else None
    ask = cached_output("cond") if teacher is None else online_output(teacher)

    def compare(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        noisy = diffusion.noisy(batch)
        return predict(model, noisy, batch), ask(batch, noisy)

    training = Training(
        start,
        lambda model: _objective(diffusion, distillation, ask, teacher, model),
        data,
        described=dataclasses.asdict(distillation),
        compare=compare,
        draw=Preview(sources.teacher, data).draw,
    )
    train_seeds(
        training, job, About("unet", sources.base_model, cache, {"teacher": sources.teacher})
    )


def _objective(
    diffusion: Diffusion,
    distillation: Distillation,
    ask: TeacherOutput,
    teacher: nn.Module | None,
    student: nn.Module,
) -> Objective:
    if distillation.objective == "noise":
        return Denoise(diffusion)
    features = None
    if distillation.lambda_feature and teacher is not None:
        features = FeatureDistance(student, teacher)
    return DistillOutput(
        diffusion, ask, distillation.lambda_diffusion, distillation.lambda_feature, features
    )
