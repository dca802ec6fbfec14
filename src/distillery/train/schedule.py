"""The noise schedule that every student is trained on: its teacher's."""

from pathlib import Path

from distillery.diffusion.losses import Weighting
from distillery.diffusion.objectives import Diffusion
from distillery.teacher.load import alphas_cumprod, load_scheduler


def teacher_diffusion(
    teacher: Path, kind: Weighting, gamma: float, space: str = "native"
) -> Diffusion:
    """The schedule in a diffusers folder, errors weighted in `space`: `native`, eps, v or x0."""
    scheduler = load_scheduler(teacher)
    return Diffusion.create(
        alphas_cumprod(scheduler),
        scheduler.config.prediction_type,
        space=space,
        kind=kind,
        gamma=gamma,
    )
