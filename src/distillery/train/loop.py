"""The one training loop: CPU, one GPU or several processes, any objective, exact resume.

In: a model (or several, in a `ModuleDict`), an objective, batches and settings. Out: the trained
model and its history; logs and checkpoints in a work folder, also where a signal ends it after a
step. It saves no model: that is its caller's. To resume, call it again with the same arguments:
data, noise, learning rate and random seeds are functions of the step, so the result equals the
uninterrupted run's, on the CPU bit for bit.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from tqdm import tqdm

from distillery.core.device import check_launcher, num_processes
from distillery.core.errors import DistilleryError
from distillery.core.precision import autocast_name
from distillery.core.runtime import set_matmul_precision
from distillery.diffusion.batch import Movable
from distillery.diffusion.objectives import Terms
from distillery.models.checkpointing import recompute_activations
from distillery.train.feed import Batches, ahead
from distillery.train.interrupted import interrupted
from distillery.train.logs import History, Log
from distillery.train.rounding import narrow, widen
from distillery.train.settings import Settings
from distillery.train.state import Average, TrainState, trainable
from distillery.train.step import Losses, Plan, Step, plan_of, require_finite

B = TypeVar("B", bound=Movable)
Validate = Callable[[nn.Module], dict[str, float]]
MAX_LOGGED_STEPS = 500


@dataclass(frozen=True)
class Place:
    """Where a training runs: `folder` keeps checkpoints, `log.jsonl` and TensorBoard's files."""

    device: torch.device
    folder: Path
    progress: Callable[..., tqdm]


def fit(
    model: nn.Module,
    objective: Callable[[nn.Module, B], Terms],
    batches: Batches[B],
    settings: Settings,
    place: Place,
    *,
    seed: int,
    validate: Validate = lambda model: {},
) -> History:
    """Train `model` in place; with an average of the weights, that is what it ends with.

    The history has one entry for each of up to 500 evenly spaced steps and one per validation;
    step n means after n updates. Before each step torch's generator is seeded from `seed` and the
    step. Losses are looked at when a step is logged, kept or validated: only then does the host
    wait for the device. Raises DistilleryError for a loss that is not finite (naming step and
    term), for an empty set of samples, and where processes are not as many as the launcher was
    asked for.
    """
    if not len(batches):
        raise DistilleryError("training: no training samples; check the splits of the data")
    accelerator, folder = make_accelerator(place.device, settings), place.folder
    plan = plan_of(settings, accelerator)
    state = _start(model, settings, accelerator, plan)
    resumed = state.restore(folder)
    if accelerator.is_main_process:
        print(f"seed {seed}: {_describe(state, settings, resumed=resumed)}", file=sys.stderr)
    trained, state.optimizer = accelerator.prepare(model, state.optimizer)
    step = Step(trained, objective, state, settings, accelerator, plan, seed)
    losses, is_due = Losses(lambda: step.names), _looked_at(settings)
    source = ahead(batches, state.step, settings.steps, settings.accumulate_steps, accelerator)
    with (
        interrupted(state, accelerator) as is_interrupted,
        Log(folder, state.history, enabled=accelerator.is_main_process) as log,
        place.progress(settings.steps, initial=state.step, unit="step") as bar,
    ):
        for parts in source:
            _validate(state, settings, validate, log, accelerator)
            values = step(parts)
            losses.add(state.step, values)
            is_looked_at = is_due(state.step)
            if (ends := is_interrupted(is_looked_at)) or is_looked_at:
                terms = losses.read()
                if state.step % _log_every_steps(settings) == 0:
                    log.add("train", state.step, terms)
                bar.set_postfix(loss=f"{terms['loss']:.4g}", refresh=False)
            bar.update()
            if ends or _is_kept(state.step, settings):
                _save(state, folder, accelerator)
            if ends:
                break
        else:
            _validate(state, settings, validate, log, accelerator)
    accelerator.wait_for_everyone()
    if state.average is not None:
        state.average.swap(trainable(model))
    widen(trainable(model))
    return state.history


def _log_every_steps(settings: Settings) -> int:
    return math.ceil(settings.steps / MAX_LOGGED_STEPS) or 1


def _is_kept(step: int, settings: Settings) -> bool:
    return step % settings.checkpoint_every_steps == 0 or step == settings.steps


def _looked_at(settings: Settings) -> Callable[[int], bool]:
    """After which steps the losses are read: what is kept or judged must be finite."""
    every = (
        _log_every_steps(settings),
        settings.checkpoint_every_steps,
        settings.validate_every_steps,
        settings.steps,
    )
    return lambda step: any(step % period == 0 for period in every if period)


def make_accelerator(device: torch.device, settings: Settings) -> Accelerator:
    """An Accelerator for this device and precision, checked against the launcher."""
    check_launcher()
    AcceleratorState._reset_state()  # a process may train with several settings in turn
    accelerator = Accelerator(
        mixed_precision=autocast_name(settings.precision), cpu=device.type == "cpu"
    )
    if accelerator.num_processes != num_processes():
        raise DistilleryError(
            f"training: {num_processes()} processes were asked for, {accelerator.num_processes} "
            "run; start with torchrun --standalone --nproc_per_node N"
        )
    num_shares = accelerator.num_processes * settings.accumulate_steps
    if settings.batch_size % num_shares:
        raise DistilleryError(
            f"training.batch_size: {settings.batch_size} does not divide among "
            f"{accelerator.num_processes} processes with {settings.accumulate_steps} parts each "
            "(training.accumulate_steps)"
        )
    set_matmul_precision(settings.matmul_precision, device)
    return accelerator


def _start(
    model: nn.Module, settings: Settings, accelerator: Accelerator, plan: Plan
) -> TrainState:
    """The state before the first step."""
    model.to(accelerator.device).train()
    settings.way.lay_out(model, settings.batch_size)
    if settings.gradient_checkpointing:
        recompute_activations(model)
    if settings.weights == "bf16":
        narrow(trainable(model))
    optimizer = settings.make_optimizer(model, recordable=plan.records)
    averages = settings.ema_decay > 0
    average = Average(trainable(model), settings.ema_decay) if averages else None
    return TrainState(model, optimizer, average, accelerator.scaler)


def _describe(state: TrainState, settings: Settings, *, resumed: bool) -> str:
    total = sum(p.numel() for p in state.model.parameters())
    trained = sum(p.numel() for p in trainable(state.model))
    start = f"resumed at step {state.step}" if resumed else "from the start"
    return f"training {trained:,} of {total:,} parameters for {settings.steps} steps, {start}"


def _validate(
    state: TrainState, settings: Settings, validate: Validate, log: Log, accelerator: Accelerator
) -> None:
    """Where it is due, log what `validate` says of the weights that would be kept now."""
    last = state.step == settings.steps
    if not accelerator.is_main_process or (state.step % settings.validate_every_steps and not last):
        return
    # What calls a part of the model by itself has autocast from nowhere else.
    as_trained = accelerator.autocast() if settings.weights == "bf16" else contextlib.nullcontext()
    with _averaged(state), torch.no_grad(), as_trained:
        state.model.eval()
        values = validate(state.model)
        state.model.train()
    require_finite(values, state.step)
    if values:  # nothing where there is no validation split
        log.add("val", state.step, values)


@contextlib.contextmanager
def _averaged(state: TrainState) -> Iterator[None]:
    """For a while, the model has its averaged weights."""
    if state.average is not None:
        state.average.swap(trainable(state.model))
    yield
    if state.average is not None:
        state.average.swap(trainable(state.model))


def _save(state: TrainState, folder: Path, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        state.save(folder)
    accelerator.wait_for_everyone()
