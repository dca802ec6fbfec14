"""What must not change: weights under every runtime, after a resume, from run to run.

Each runtime must give the weights of eager training after 20 steps; a steady step must not wait for
the device; a training at full size is run twice; CPU and GPU must draw alike.
"""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Place
from invented import Cached
from short_chain import SCENES

from distillery.core.progress import bar
from distillery.core.runtime import Runtime
from distillery.cost.accounting import load_architecture, low_rank_unet
from distillery.cost.full_size.device import materialise
from distillery.cost.full_size.training import diffusion
from distillery.diffusion.objectives import DistillOutput, cached_output
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import Prompt
from distillery.teacher.load import load_teacher
from distillery.train import loop, step
from distillery.train.loop import Place as TrainingPlace
from distillery.train.loop import fit
from distillery.train.order import Shuffled
from distillery.train.settings import Settings
from parts.training import Sizes, bare_step, sizes_of

NUM_STEPS = 20


def run(place: Place) -> None:
    record = place.record("correctness")
    record.measure("runtimes/eager again", _same_weights, place, "eager")
    if not place.dry:
        record.measure("runtimes/graph", _same_weights, place, "graph")
        record.measure("runtimes/graph resumed", _resumed, place, "graph")
        record.measure("no waiting in steady steps", _no_waiting, place)
        for is_strict in (True, False):
            name = f"full-size training again, {'strict' if is_strict else 'not strict'}"
            record.measure(name, _full_size_again, place, is_strict)
    record.measure("scenes drawn on CPU and here", _drawn_alike, place)
    if not place.dry:
        record.measure("runtimes/compile", _same_weights, place, "compile")


def _train(place: Place, kind: str, folder: Path, **changed: Any) -> torch.Tensor:
    """The low-rank student of the shipped teacher's size after 20 steps; its weights as one row."""
    unet = load_architecture("scenes")["unet"]
    model = low_rank_unet(unet).float().requires_grad_(True).train()
    torch.manual_seed(0)
    materialise([model], torch.device("cpu"))
    side = unet.config.sample_size
    latent, text = (unet.config.in_channels, side, side), (16, unet.config.cross_attention_dim)
    sizes = Sizes(4, 2 if place.dry else NUM_STEPS, latent, text, 64)
    chosen = {**vars(sizes.settings(kind, "fp32")), "learning_rate": 1e-3,
              "matmul_precision": "highest", **changed}  # fmt: skip
    where = TrainingPlace(place.device, folder, lambda n, **options: bar(n, "train", **options))
    lesson = DistillOutput(diffusion(), cached_output("cond"))
    batches = Shuffled(Cached(sizes.latent, sizes.text, num=16), sizes.batch, 0)
    fit(model, lesson, batches, Settings(**chosen), where, seed=0)
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


def _fresh(place: Place, name: str) -> Path:
    folder = place.work / "correctness" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _eager(place: Place) -> torch.Tensor:
    return _train(place, "eager", _fresh(place, "eager"))


def _same_weights(place: Place, kind: str) -> dict[str, Any]:
    """How far the weights of a runtime are from those of eager training."""
    return _compared(_eager(place), _train(place, kind, _fresh(place, kind)))


def _compared(one: torch.Tensor, other: torch.Tensor) -> dict[str, Any]:
    difference = (one - other).abs().max() / one.abs().max()
    return {"equal": torch.equal(one, other), "relative_difference": float(difference)}


def _resumed(place: Place, kind: str) -> dict[str, Any]:
    """Killed after 12 of 20 steps and started again, against the same without."""
    whole = _train(place, kind, _fresh(place, "whole"), checkpoint_every_steps=5)
    folder = _fresh(place, "cut")
    with killed_after(12), expecting(KeyboardInterrupt):
        _train(place, kind, folder, checkpoint_every_steps=5)
    return _compared(whole, _train(place, kind, folder, checkpoint_every_steps=5))


@contextmanager
def killed_after(num_steps: int) -> Iterator[None]:
    """A training is interrupted as by Ctrl-C."""
    call, count = step.Step.__call__, itertools.count(1)

    def counted(self: step.Step, parts: Any) -> Any:
        if next(count) > num_steps:
            raise KeyboardInterrupt
        return call(self, parts)

    with mock.patch.object(step.Step, "__call__", counted):
        yield


@contextmanager
def expecting(kind: type[BaseException]) -> Iterator[None]:
    """Raise RuntimeError where no such exception comes."""
    try:
        yield
    except kind:
        return
    raise RuntimeError(f"no {kind.__name__} came")


def _no_waiting(place: Place) -> dict[str, Any]:
    """torch refuses what makes the host wait, in steps 6 to 20, for each runtime."""
    call, found = step.Step.__call__, {}

    def watched(self: step.Step, parts: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if self._state.step > 5 else "default")
        try:
            return call(self, parts)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for kind in ("eager", "graph"):
        with (
            mock.patch.object(step.Step, "__call__", watched),
            mock.patch.object(loop, "MAX_LOGGED_STEPS", 2),
        ):
            try:
                _train(place, kind, _fresh(place, "waiting"))
                found[kind] = "none"
            except RuntimeError as error:
                found[kind] = str(error).splitlines()[0]
    return found


def _full_size_again(place: Place, is_strict: bool) -> dict[str, Any]:
    """Two equal trainings of the dense U-Net, and what a step takes.

    `is_strict`: as the loop trains (`strictly_reproducible`).
    """
    sizes = sizes_of(place)
    found = [bare_step(place, "dense", "graph", sizes, is_strict=is_strict) for _ in range(2)]
    (one, weights), (_, again) = found
    return {**_compared(weights, again), "ms": one["ms"]}


def _drawn_alike(place: Place) -> dict[str, Any]:
    """The shipped teacher's images here against the CPU's, and recorded against eager ones."""
    prompts = [Prompt(str(i), "a red circle on a blue background") for i in range(2)]

    def draw(device: torch.device, kind: str) -> np.ndarray:
        teacher = load_teacher(SCENES, device, torch.float32)
        steps = 1 if place.dry else 12
        sampler = Sampler(teacher, steps, 3.0, 64, 0, runtime=Runtime(kind))
        return sampler.images(prompts).astype(int)

    cpu, here = draw(torch.device("cpu"), "eager"), draw(place.device, "eager")
    found = {"largest_difference_of_255": int(np.abs(cpu - here).max())}
    if not place.dry:
        found["graph_equals_eager"] = bool((draw(place.device, "graph") == here).all())
    return found
