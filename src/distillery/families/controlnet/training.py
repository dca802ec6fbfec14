"""Distilling a ControlNet: its teacher, its samples, its training.

In: the teacher's folder with `controlnet_<kind>`, its cache, condition maps. Out: one model folder
as `seeds` writes it. The U-Net and the teacher ControlNet stay as they are. Not here: starting
points, losses, the loop.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.precision import torch_dtype
from distillery.core.run import Run
from distillery.data.conditions.reader import ConditionMaps
from distillery.diffusion.batch import Samples
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
from distillery.models.export import save_model
from distillery.teacher.cache.conditioned import ConditionedSamples
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import load_controlnet, load_unet
from distillery.train.control_preview import ControlPreview
from distillery.train.loop import make_accelerator
from distillery.train.schedule import teacher_diffusion
from distillery.train.seeds import train_seeds
from distillery.train.settings import Settings

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
    start: Start,
    distillation: ControlDistillation,
    settings: Settings,
    *,
    seeds: Sequence[int],
    base_model: str,
    teacher: Path,
    teacher_cache: Path,
    conditions: Path,
    out: Path,
    run: Run,
    device: torch.device,
) -> None:
    """Train `start(seed, hints)` for every seed, one after the other, and write them to `out`.

    `hints` are maps of training images, float32 [n, 3, H, W]. An interrupted call goes on from the
    checkpoints in the run's work folder.
    """
    kind = distillation.kind
    diffusion = teacher_diffusion(teacher, distillation.weighting, distillation.gamma)
    view = None if distillation.online else f"control_{kind}"
    cache = TeacherCache(teacher_cache, [view] if view else [], len(diffusion.alpha_bar))
    maps = ConditionMaps(conditions, [kind], cache.meta.resolution_px)
    train, val = (ConditionedSamples(cache.samples(split), maps) for split in ("train", "val"))
    unet = load_unet(teacher, device, torch_dtype(settings.precision))
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    residuals = _residuals(teacher, unet, distillation, diffusion, [train, val], run, settings)
    asked = ControlTeacher(unet, residuals, view)
    shown = val if len(val) else train
    hints = train.batch(_records(train, cache.meta.num_slots, NUM_HINTS)).conditions[kind]

    def objective(model: nn.Module) -> DistillControlNet:
        layerwise = _layerwise(model, unet, distillation)
        return DistillControlNet(kind, diffusion, asked, distillation.factors, layerwise)

    train_seeds(
        lambda seed: start(seed, hints),
        objective,
        settings,
        train=train,
        val=val,
        seeds=seeds,
        out=out,
        run=run,
        device=device,
        described=dataclasses.asdict(distillation),
        card=About("controlnet", base_model, cache, {"teacher": teacher}, [kind]),
        save=save_model,
        compare=DistillControlNet(kind, diffusion, asked, distillation.factors).compare,
        draw=ControlPreview(teacher, unet, shown, kind, cache.meta.num_slots).draw,
    )


def _records(samples: Samples, num_slots: int, count: int) -> np.ndarray:
    """The first item of each of up to `count` records."""
    return np.arange(0, min(len(samples), count * num_slots), num_slots)


def _layerwise(
    model: nn.Module, unet: UNet2DConditionModel, distillation: ControlDistillation
) -> Layerwise | None:
    if not distillation.factors.kd:
        return None
    return Layerwise(model, num_residuals(unet), distillation.stats, distillation.axes)


def _residuals(
    teacher: Path,
    unet: UNet2DConditionModel,
    distillation: ControlDistillation,
    diffusion: Diffusion,
    sets: Sequence[Samples],
    run: Run,
    settings: Settings,
) -> Residuals | None:
    """How the teacher ControlNet's residuals are had; it stays in memory if asked at every step."""
    if not (distillation.online or distillation.factors.kd):
        return None
    kind, budget_bytes = distillation.kind, distillation.residual_budget_bytes
    ask = online_residuals(load_controlnet(teacher, kind, unet), kind)
    if budget_bytes is None:
        return ask
    folder = run.work / "residuals"
    with make_accelerator(unet.device, settings).main_process_first():
        write_residuals(
            folder, sets, ask, diffusion,
            device=unet.device, budget_bytes=budget_bytes, progress=run.progress,
        )  # fmt: skip
    return cached_residuals(folder)
