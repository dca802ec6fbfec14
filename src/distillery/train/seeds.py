"""One variant trained once for every seed, and the folder that comes of it.

In: a `Training` (how a model starts, its objective, samples) and a `Job` (settings, seeds, where).
Out: a folder with the first seed's model at its top and the others in `seed-<n>/`, `training.json`
(settings and losses), a model card and, where the caller draws one, `validation.png`. Not here:
models, objectives, the loop itself.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from distillery.core.artifacts import write_json
from distillery.core.run import Run
from distillery.diffusion.batch import Batch, Samples
from distillery.diffusion.objectives import Objective
from distillery.models.export import save_model
from distillery.models.load import seed_folder
from distillery.train.loop import Place, Validate, fit
from distillery.train.order import Shuffled, batch_items
from distillery.train.settings import Settings
from distillery.train.sources import TrainingData

PREVIEW = "validation.png"
TRAINING = "training.json"
Compare = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
Draw = Callable[[nn.Module], Image.Image]


class Card(Protocol):
    """Writes a model folder's card."""

    def write(
        self, folder: Path, variant: str, settings: Mapping[str, Any], seeds: Sequence[int]
    ) -> None: ...


@dataclass(frozen=True)
class Training:
    """What is trained on what.

    `start(seed)` makes a model and `objective(model)` its objective, each once per seed. On `val`,
    `compare(model, batch)` gives the student's and the teacher's output, whose distance is logged;
    `draw(model)` a picture. `described` goes into `training.json` and the card.
    """

    start: Callable[[int], nn.Module]
    objective: Callable[[nn.Module], Objective]
    data: TrainingData
    described: Mapping[str, Any]
    compare: Compare | None = None
    draw: Draw | None = None
    save: Callable[[nn.Module, Path], object] = save_model


@dataclass(frozen=True)
class Job:
    """How a training is run: once for each of `seeds`, on `device`, into the new folder `out`."""

    settings: Settings
    seeds: Sequence[int]
    run: Run
    device: torch.device
    out: Path


def train_seeds(training: Training, job: Job, card: Card) -> None:
    """Train one model for every seed, one after the other, and write them to `job.out`.

    An interrupted call goes on from the checkpoints in the run's work folder, whose label ends with
    the variant's name.
    """
    settings, histories = job.settings, {}
    for seed in job.seeds:
        model, work = training.start(seed), job.run.work / f"seed-{seed}"
        lesson = training.objective(model)
        validate = validation(lesson, training.compare, training.data.val, settings, job.device)
        histories[str(seed)] = fit(
            model,
            lesson,
            Shuffled(training.data.train, settings.batch_size, seed),
            settings,
            Place(job.device, work, job.run.progress),
            seed=seed,
            validate=_drawing(validate, training.draw, work),
        )
        folder = seed_folder(job.out, seed, job.seeds)
        training.save(model.to("cpu"), folder)
        if (work / PREVIEW).is_file():  # of several processes the main one draws
            shutil.copyfile(work / PREVIEW, folder / PREVIEW)
    values = {**training.described, **dataclasses.asdict(settings)}
    write_json(job.out / TRAINING, {"settings": values, "seeds": histories})
    card.write(job.out, job.run.label.rpartition("/")[2], values, job.seeds)


def _drawing(validate: Validate, draw: Draw | None, work: Path) -> Validate:
    """`validate`, leaving the picture of the last call in `work`."""

    def draw_and_validate(model: nn.Module) -> dict[str, float]:
        if draw:
            draw(model).save(work / PREVIEW)
        return validate(model)

    return draw_and_validate


def validation(
    objective: Objective,
    compare: Compare | None,
    samples: Samples,
    settings: Settings,
    device: torch.device,
) -> Validate:
    """Loss and its terms; `teacher_distance`, |student - teacher|^2 / |teacher|^2, with `compare`.

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
            if compare:
                given, wanted = (output.float() for output in compare(model, batch))
                distance += float((given - wanted).square().sum())
                energy += float(wanted.square().sum())
        if not count:
            return {}
        beside = {"teacher_distance": distance / energy} if compare else {}
        return {"loss": sum(totals.values()), **totals, **beside}

    return validate
