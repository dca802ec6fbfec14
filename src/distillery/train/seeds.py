"""One variant trained once for every seed, and the folder that comes of it.

In: how a model starts, its objective, samples, settings. Out: a folder with the first seed's model
at its top and the others in `seed-<n>/`, `training.json` (settings and losses) and, where the
caller draws one, `validation.png`, and a model card. Not here: models, objectives, the loop itself.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
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
from distillery.train.loop import Validate, fit
from distillery.train.order import batch_items
from distillery.train.settings import Settings

PREVIEW = "validation.png"
TRAINING = "training.json"


class Card(Protocol):
    """Writes a model folder's card."""

    def write(
        self, folder: Path, variant: str, settings: Mapping[str, Any], seeds: Sequence[int]
    ) -> None: ...


Compare = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


def train_seeds(
    start: Callable[[int], nn.Module],
    objective: Callable[[nn.Module], Objective],
    settings: Settings,
    *,
    train: Samples,
    val: Samples,
    seeds: Sequence[int],
    out: Path,
    run: Run,
    device: torch.device,
    described: Mapping[str, Any],
    card: Card,
    save: Callable[[nn.Module, Path], object],
    compare: Compare | None = None,
    draw: Callable[[nn.Module], Image.Image] | None = None,
) -> None:
    """Train `start(seed)` for every seed, one after the other, and write them to the folder `out`.

    `objective(model)` is made once per seed. On `val`, `compare(model, batch)` gives the student's
    and the teacher's output, whose distance is logged; `draw(model)` a picture. `described` goes
    into `training.json` and the `card` beside the settings. An interrupted call goes on from the
    checkpoints in the run's work folder, whose label ends with the variant's name.
    """
    histories = {}
    for place, seed in enumerate(seeds):
        model, work = start(seed), run.work / f"seed-{seed}"
        lesson = objective(model)
        histories[str(seed)] = fit(
            model,
            lesson,
            train,
            settings,
            seed=seed,
            device=device,
            folder=work,
            validate=_drawing(validation(lesson, compare, val, settings, device), draw, work),
            progress=run.progress,
        )
        folder = out / f"seed-{seed}" if place else out
        save(model.to("cpu"), folder)
        if draw:
            shutil.copyfile(work / PREVIEW, folder / PREVIEW)
    values = {**described, **dataclasses.asdict(settings)}
    write_json(out / TRAINING, {"settings": values, "seeds": histories})
    card.write(out, run.label.rpartition("/")[2], values, seeds)


def _drawing(
    validate: Validate, draw: Callable[[nn.Module], Image.Image] | None, work: Path
) -> Validate:
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
