"""The one training loop: CPU, one GPU or several processes, any objective, exact resume.

In: a model (or several, in a `ModuleDict`), an objective, batches and settings. Out: the trained
model and its history; logs and checkpoints in a work folder. It saves no model: that is its
caller's. To resume, call it again with the same arguments: data, noise, learning rate and random
seeds are functions of the step, so the result equals the uninterrupted run's, on the CPU bit for
bit.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from tqdm import tqdm

from distillery.core.device import check_launcher, num_processes
from distillery.core.errors import DistilleryError
from distillery.core.precision import autocast_name
from distillery.diffusion.batch import Movable
from distillery.diffusion.objectives import Terms
from distillery.train.logs import History, Log
from distillery.train.settings import Settings
from distillery.train.state import Average, TrainState

B = TypeVar("B", bound=Movable)
Validate = Callable[[nn.Module], dict[str, float]]
MAX_LOGGED_STEPS = 500


class Batches(Protocol[B]):
    """What a training reads, a function of the step alone; `Shuffled` is that of samples."""

    def __len__(self) -> int: ...

    def at(self, step: int, process: int, num_processes: int) -> B:
        """The share of one process in a step's batch, on the CPU; called in a thread."""
        ...


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
    step. Raises DistilleryError for a loss that is not finite (naming step and term), for an empty
    set of samples, and where processes are not as many as the launcher was asked for.
    """
    if not len(batches):
        raise DistilleryError("training: no training samples; check the splits of the data")
    accelerator, folder = make_accelerator(place.device, settings), place.folder
    state = _start(model, settings, accelerator)
    resumed = state.restore(folder)
    if accelerator.is_main_process:
        print(_describe(state, settings, resumed=resumed), file=sys.stderr)
    trained, state.optimizer = accelerator.prepare(model, state.optimizer)
    if settings.compile:
        trained = torch.compile(trained)
    log_every_steps = math.ceil(settings.steps / MAX_LOGGED_STEPS) or 1
    with (
        Log(folder, state.history, enabled=accelerator.is_main_process) as log,
        place.progress(settings.steps, initial=state.step, unit="step") as bar,
    ):
        for batch in _ahead(batches, state.step, settings.steps, accelerator):
            _validate(state, settings, validate, log, accelerator)
            torch.manual_seed(seed + 1_000_003 * state.step)
            terms = _update(trained, objective, batch, state, settings, accelerator)
            if state.step % log_every_steps == 0:
                log.add("train", state.step, terms)
            bar.set_postfix(loss=f"{terms['loss']:.4g}", refresh=False)
            bar.update()
            if state.step % settings.checkpoint_every_steps == 0 or state.step == settings.steps:
                _save(state, folder, accelerator)
        _validate(state, settings, validate, log, accelerator)
    accelerator.wait_for_everyone()
    if state.average is not None:
        state.average.swap(_trainable(model))
    return state.history


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
    if settings.batch_size % accelerator.num_processes:
        raise DistilleryError(
            f"training.batch_size: {settings.batch_size} does not divide among "
            f"{accelerator.num_processes} processes"
        )
    return accelerator


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _start(model: nn.Module, settings: Settings, accelerator: Accelerator) -> TrainState:
    """The state before the first step."""
    model.to(accelerator.device).train()
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    optimizer = settings.make_optimizer(model)
    averages = settings.ema_decay > 0
    average = Average(_trainable(model), settings.ema_decay) if averages else None
    return TrainState(model, optimizer, average, accelerator.scaler)


def _describe(state: TrainState, settings: Settings, *, resumed: bool) -> str:
    total = sum(p.numel() for p in state.model.parameters())
    trained = sum(p.numel() for p in _trainable(state.model))
    start = f"resumed at step {state.step}" if resumed else "from the start"
    return f"training {trained:,} of {total:,} parameters for {settings.steps} steps, {start}"


def _ahead(batches: Batches[B], start: int, end: int, accelerator: Accelerator) -> Iterator[B]:
    """This process's share of every step's batch, made one step ahead in a thread."""

    def load(step: int) -> B:
        return batches.at(step, accelerator.process_index, accelerator.num_processes)

    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead = [pool.submit(load, step) for step in range(start, min(start + 1, end))]
        for step in range(start, end):
            batch = ahead.pop().result()
            if step + 1 < end:
                ahead.append(pool.submit(load, step + 1))
            yield batch.to(accelerator.device)


def _update(
    model: nn.Module,
    objective: Callable[[nn.Module, B], Terms],
    batch: B,
    state: TrainState,
    settings: Settings,
    accelerator: Accelerator,
) -> dict[str, float]:
    """One optimiser step; returns the loss and its terms, averaged over processes."""
    for group in state.optimizer.param_groups:
        group["lr"] = settings.learning_rate_at(state.step)
    terms = objective(model, batch)
    values = accelerator.reduce(torch.stack([t.detach() for t in terms.values()]), "mean")
    named = dict(zip(terms, values.tolist(), strict=True))
    _require_finite(named, state.step + 1)
    accelerator.backward(sum(terms.values()))
    accelerator.clip_grad_norm_(_trainable(state.model), settings.max_grad_norm)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step += 1
    if state.average is not None:
        state.average.update(_trainable(state.model), state.step)
    return {"loss": sum(named.values()), **named}


def _require_finite(terms: dict[str, float], step: int) -> None:
    for name, value in terms.items():
        if not math.isfinite(value):
            raise DistilleryError(
                f"training: loss term {name} is {value} at step {step}; lower the learning rate "
                "or raise the precision"
            )


def _validate(
    state: TrainState, settings: Settings, validate: Validate, log: Log, accelerator: Accelerator
) -> None:
    """Where it is due, log what `validate` says of the weights that would be kept now."""
    last = state.step == settings.steps
    if not accelerator.is_main_process or (state.step % settings.validate_every_steps and not last):
        return
    with _averaged(state), torch.no_grad():
        state.model.eval()
        values = validate(state.model)
        state.model.train()
    _require_finite(values, state.step)
    if values:  # nothing where there is no validation split
        log.add("val", state.step, values)


@contextlib.contextmanager
def _averaged(state: TrainState) -> Iterator[None]:
    """For a while, the model has its averaged weights."""
    if state.average is not None:
        state.average.swap(_trainable(state.model))
    yield
    if state.average is not None:
        state.average.swap(_trainable(state.model))


def _save(state: TrainState, folder: Path, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        state.save(folder)
    accelerator.wait_for_everyone()
