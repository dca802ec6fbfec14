"""Distilling a ControlNet: its teacher, its samples, its training.

In: the teacher's folder with `controlnet_<kind>`, its cache, condition maps. Out: one model folder
as `seeds` writes it. The U-Net and the teacher ControlNet stay as they are. Not here: starting
points, losses, the loop.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.precision import torch_dtype
from distillery.diffusion.control import (
    ControlTeacher,
    Residuals,
    num_residuals,
    online_residuals,
)
from distillery.diffusion.controlnet import DistillControlNet, Factors
from distillery.diffusion.layerwise import Axes, Layerwise, Stats
from distillery.diffusion.losses import Weighting
from distillery.diffusion.objectives import Diffusion
from distillery.families.about import About
from distillery.families.controlnet.residuals import cached_residuals, write_residuals
from distillery.models.checkpointing import recompute_activations
from distillery.models.load import load_unet
from distillery.teacher.load import load_teacher_controlnet
from distillery.train.loop import Place, make_accelerator
from distillery.train.preview import Preview
from distillery.train.seeds import Job, Training, train_seeds
from distillery.train.sources import Sources, TrainingData

NUM_HINTS = 32


@dataclass(frozen=True)
class ControlDistillation:
    """What a student learns from; `kind` are the maps, `factors` those of the three distances.

    `online` asks the teacher for the U-Net's output instead of the view `control_<kind>`.
    `residual_budget_bytes` None asks for its residuals at every step, a number caches them.
    """

    kind: str
    factors: Factors
    stats: Stats
    axes: Axes
    weighting: Weighting
    gamma: float
    online: bool
    residual_budget_bytes: int | None


Start = Callable[[int, Tensor], ControlNetModel]


def train_controlnets(
    start: Start, distillation: ControlDistillation, sources: Sources, job: Job
) -> None:
    """Train `start(seed, hints)` for every seed of the job.

    `hints` are maps of training images, float32 [n, 3, H, W]. Reads the views `base` and
    `control_<kind>`, and the condition maps.
    """
    kind, settings = distillation.kind, job.settings
    diffusion = sources.diffusion(distillation.weighting, distillation.gamma)
    view = None if distillation.online else f"control_{kind}"
    cache = sources.cache(*([view] if view else []))
    data = sources.data(cache, [kind], only_with_maps=True)
    unet = load_unet(sources.teacher, job.device, torch_dtype(settings.precision))
    if settings.gradient_checkpointing:
        recompute_activations(unet)
    residuals = _residuals(distillation, sources.teacher, unet, diffusion, data, job)
    asked = ControlTeacher(unet, residuals, view)
    hints = data.seen(NUM_HINTS).conditions[kind]
    preview = Preview(sources.teacher, data)

    def objective(model: nn.Module) -> DistillControlNet:
        layerwise = _layerwise(model, unet, distillation)
        return DistillControlNet(kind, diffusion, asked, distillation.factors, layerwise)

    training = Training(
        lambda seed: start(seed, hints),
        objective,
        data,
        described=dataclasses.asdict(distillation),
        compare=DistillControlNet(kind, diffusion, asked, distillation.factors).compare,
        draw=lambda student: preview.draw_controlled(unet, student, [kind]),
    )
    builds_on = {"teacher": sources.teacher}
    train_seeds(training, job, About("controlnet", sources.base_model, cache, builds_on, [kind]))


def _layerwise(
    model: nn.Module, unet: UNet2DConditionModel, distillation: ControlDistillation
) -> Layerwise | None:
    if not distillation.factors.kd:
        return None
    return Layerwise(model, num_residuals(unet), distillation.stats, distillation.axes)


def _residuals(
    distillation: ControlDistillation,
    teacher: Path,
    unet: UNet2DConditionModel,
    diffusion: Diffusion,
    data: TrainingData,
    job: Job,
) -> Residuals | None:
    """How the teacher ControlNet's residuals are had; it stays in memory if asked at every step."""
    if not (distillation.online or distillation.factors.kd):
        return None
    kind, budget_bytes = distillation.kind, distillation.residual_budget_bytes
    ask = online_residuals(load_teacher_controlnet(teacher, kind, unet), kind)
    if budget_bytes is None:
        return ask
    place = Place(unet.device, job.run.work / "residuals", job.run.progress)
    with make_accelerator(unet.device, job.settings).main_process_first():
        write_residuals(place, [data.train, data.val], ask, diffusion, budget_bytes)
    return cached_residuals(place.folder)
