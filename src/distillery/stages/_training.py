"""What the training stages share: from their sections of the params to a `Job`."""

from pathlib import Path

from distillery.core.device import claim_device
from distillery.core.run import Run
from distillery.params import Params
from distillery.params.base import Training
from distillery.train.seeds import Job
from distillery.train.settings import Settings


def training_job(
    params: Params, run: Run, out: Path, training: Training, *, steps: int, learning_rate: float
) -> Job:
    """A variant's steps and learning rate with its stage's `training` section, for all seeds."""
    settings = Settings(steps=steps, learning_rate=learning_rate, **training.model_dump())
    return Job(settings, params.seeds, run, claim_device(params.device), out)
