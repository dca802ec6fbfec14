"""Stage I of ELR-Diffusion: the starting point of a variant, its objective, its training.

In: the teacher's folder, the decomposed teacher that `init_student` made, the teacher's cache.
Out: one model folder, the first seed's model at its top and the others in `seed-<n>/`, with
`training.json` (settings and losses) and `validation.png`. Not here: the decomposition, the loop.
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from tqdm import tqdm

from distillery.artifacts import write_json
from distillery.models.factorise import build_student, rebalance
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.run import Run
from distillery.teacher.cache import CachedSamples, TeacherCache
from distillery.teacher.load import alphas_cumprod, load_scheduler, load_unet
from distillery.train.batch import Batch
from distillery.train.logs import History
from distillery.train.loop import fit
from distillery.train.losses import Weighting
from distillery.train.objectives import (
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
from distillery.train.order import batch_items
from distillery.train.preview import Preview
from distillery.train.settings import Settings

PREVIEW = "validation.png"
TRAINING = "training.json"


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

    `low_rank` takes its ranks from `init_folder`, whatever the init. Raises DistilleryError for a
    combination that does not exist.
    """
    if architecture == "low_rank" and init == "random":
        config = LowRankUNet2DConditionModel.load_config(init_folder)
        return build_student(config, init=init, ranks=config["ranks"], seed=seed)
    if architecture == "low_rank":
        folder = init_folder / "data_aware" if init == "data_aware" else init_folder
        student = LowRankUNet2DConditionModel.from_pretrained(folder)
        return rebalance(student) if init == "balanced" else student
    config = UNet2DConditionModel.load_config(teacher / "unet")
    return build_student(config, architecture=architecture, init=init, seed=seed)


def train_students(
    start: Callable[[int], UNet2DConditionModel],
    distillation: Distillation,
    settings: Settings,
    *,
    seeds: Sequence[int],
    teacher: Path,
    teacher_cache: Path,
    out: Path,
    run: Run,
    device: torch.device,
) -> None:
    """Train `start(seed)` for every seed, one after the other, and write them to the folder `out`.

    An interrupted call goes on from the checkpoints in the run's work folder.
    """
    lesson = _Lesson.prepare(distillation, teacher, teacher_cache, device)
    histories = {}
    for place, seed in enumerate(seeds):
        model, work = start(seed), run.work / f"seed-{seed}"
        histories[str(seed)] = lesson.teach(model, settings, seed, work, run.progress)
        folder = out / f"seed-{seed}" if place else out
        model.to("cpu").save_pretrained(folder)
        shutil.copyfile(work / PREVIEW, folder / PREVIEW)
    described = {**dataclasses.asdict(distillation), **dataclasses.asdict(settings)}
    write_json(out / TRAINING, {"settings": described, "seeds": histories})


@dataclass(frozen=True)
class _Lesson:
    """What the trainings of one variant share, whatever the seed."""

    distillation: Distillation
    diffusion: Diffusion
    cache: TeacherCache
    ask: TeacherOutput
    preview: Preview
    device: torch.device

    @classmethod
    def prepare(
        cls, distillation: Distillation, teacher: Path, teacher_cache: Path, device: torch.device
    ) -> "_Lesson":
        diffusion = _diffusion(teacher, distillation)
        views = [] if distillation.online else ["cond"]
        cache = TeacherCache(teacher_cache, views, len(diffusion.alpha_bar))
        ask = _teacher_output(teacher, distillation, device)
        return cls(distillation, diffusion, cache, ask, Preview(teacher, cache), device)

    def teach(
        self,
        model: UNet2DConditionModel,
        settings: Settings,
        seed: int,
        work: Path,
        progress: Callable[..., tqdm],
    ) -> History:
        """Train in place; leaves the picture of the last validation in `work`."""
        objective = _objective(self.diffusion, self.distillation, self.ask, model)
        validate = _validation(
            objective, self.diffusion, self.ask, self.cache.samples("val"), settings, self.device
        )

        def draw_and_validate(student: nn.Module) -> dict[str, float]:
            self.preview.draw(student).save(work / PREVIEW)
            return validate(student)

        return fit(
            model,
            objective,
            self.cache.samples("train"),
            settings,
            seed=seed,
            device=self.device,
            folder=work,
            validate=draw_and_validate,
            progress=progress,
        )


def _diffusion(teacher: Path, distillation: Distillation) -> Diffusion:
    scheduler = load_scheduler(teacher)
    return Diffusion.create(
        alphas_cumprod(scheduler),
        scheduler.config.prediction_type,
        space=distillation.space,
        kind=distillation.weighting,
        gamma=distillation.gamma,
    )


@dataclass(frozen=True)
class _OnlineTeacher:
    """A teacher in memory, callable as a `TeacherOutput`."""

    unet: UNet2DConditionModel

    def __call__(self, batch: Batch, noisy: torch.Tensor) -> torch.Tensor:
        return online_output(self.unet)(batch, noisy)


def _teacher_output(
    teacher: Path, distillation: Distillation, device: torch.device
) -> TeacherOutput:
    if not distillation.online:
        return cached_output("cond")
    return _OnlineTeacher(load_unet(teacher, device))


def _objective(
    diffusion: Diffusion, distillation: Distillation, ask: TeacherOutput, student: nn.Module
) -> Objective:
    if distillation.objective == "noise":
        return Denoise(diffusion)
    features = None
    if distillation.lambda_feature and isinstance(ask, _OnlineTeacher):
        features = FeatureDistance(student, ask.unet)
    return DistillOutput(
        diffusion, ask, distillation.lambda_diffusion, distillation.lambda_feature, features
    )


def _validation(
    objective: Objective,
    diffusion: Diffusion,
    ask: TeacherOutput,
    samples: CachedSamples,
    settings: Settings,
    device: torch.device,
) -> Callable[[nn.Module], dict[str, float]]:
    """Loss, its terms, and the squared distance to the teacher's output over its energy.

    Always on the same items and noise, whatever the training seed; nothing where `val` is empty.
    """
    count = min(settings.num_val_samples, len(samples))
    items = batch_items(0, 0, count, len(samples)) if count else np.empty(0, dtype=np.int64)
    chunks = np.array_split(items, max(1, -(-count // settings.batch_size))) if count else []

    @torch.no_grad()
    def validate(model: nn.Module) -> dict[str, float]:
        totals: dict[str, float] = {}
        distance = energy = 0.0
        for chunk in chunks:
            batch = samples.batch(chunk).to(device)
            for name, term in objective(model, batch).items():
                totals[name] = totals.get(name, 0.0) + float(term) * len(chunk) / count
            noisy = diffusion.noisy(batch)
            wanted = ask(batch, noisy).float()
            distance += float((predict(model, noisy, batch).float() - wanted).square().sum())
            energy += float(wanted.square().sum())
        if not count:
            return {}
        return {"loss": sum(totals.values()), **totals, "teacher_distance": distance / energy}

    return validate
