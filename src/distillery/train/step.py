"""One optimiser step: the gradients of a batch's parts added up, clipped, applied.

In: a model, an objective, the parts of a step's batch. Out: changed weights, and the loss terms
where they were computed, on the device: reading them makes the host wait for all work so far, so
`Losses` collects them until someone asks. Not here: which batches, logs, checkpoints.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distillery.core.device import is_irreproducible, strictly_reproducible
from distillery.core.errors import DistilleryError, reason_of
from distillery.core.runtime import Kind, captured, records, tell, usable
from distillery.diffusion.batch import Movable
from distillery.diffusion.objectives import Terms
from distillery.models.compiled_blocks import Compiled
from distillery.train.feed import on_device
from distillery.train.settings import Settings
from distillery.train.state import TrainState, trainable

B = TypeVar("B", bound=Movable)
WARM_UP_STEPS = 3  # before a step is recorded: Adam's state, cuDNN's choices, compiled kernels


@dataclass(frozen=True)
class Plan:
    """How steps are run; `records`: whole steps as CUDA graphs."""

    kind: Kind
    records: bool


def plan_of(settings: Settings, accelerator: Accelerator) -> Plan:
    """What this training can have; where that is less than was asked for, one line says so."""
    kind, why = usable(settings.runtime, accelerator.device), None
    if accelerator.num_processes > 1:
        why = "several processes exchange gradients within a step"
    elif settings.precision == "fp16":
        why = "fp16 scales its loss from step to step; use bf16"
    elif settings.optimizer != "adamw":
        why = f"{settings.optimizer} can't be recorded; use adamw"
    elif settings.weights == "bf16":
        why = "weights in bf16 are rounded by other noise in every step"
    if kind == "graph" and why:
        kind = tell(kind, why)
    return Plan(kind, why is None and records(kind, accelerator.device))


class Step:
    """Steps of `state` one after the other; `trained` is its model as `accelerator` prepared it.

    Before each, torch's generator is seeded from `seed` and the step. An objective with a method
    `prepare(batch, share, num_shares)` makes its random choices there, on the CPU, before the batch
    is moved; the shares of a step are the parts of all processes, of which share i has the samples
    i, i + num_shares, ...
    """

    def __init__(
        self,
        trained: nn.Module,
        objective: Callable[[nn.Module, B], Terms],
        state: TrainState,
        settings: Settings,
        accelerator: Accelerator,
        plan: Plan,
        seed: int,
    ) -> None:
        self._model, self._objective, self._state = trained, objective, state
        self._settings, self._accelerator = settings, accelerator
        self._seed = seed
        self._is_strict = accelerator.device.type == "cuda"
        self._trainable = trainable(state.model)
        self.names: tuple[str, ...] = ()
        self._run = self._in_runtime(plan)

    def __call__(self, parts: Sequence[B]) -> Tensor:
        """The loss terms [k] of this step, averaged over parts and processes, on the device."""
        state = self._state
        self._set_learning_rate(self._settings.learning_rate_at(state.step))
        values = self._run_strictly(parts) if self._is_strict else self._once(parts)
        state.step += 1
        if state.average is not None:
            state.average.update(self._trainable, state.step)
        return values.clone()  # a recorded step writes the next values to the same place

    def _in_runtime(self, plan: Plan) -> Callable[[Sequence[B]], Tensor]:
        run: Callable[[Sequence[B]], Tensor] = self._optimise
        if plan.kind == "compile":
            run = Compiled(run, "graph" if plan.records else "eager", self._undo)
        return captured(run, plan.kind, WARM_UP_STEPS, self._undo) if plan.records else run

    def _run_strictly(self, parts: Sequence[B]) -> Tensor:
        """With the same results every time; without, from here on, where an operation can't."""
        try:
            with strictly_reproducible():
                return self._once(parts)
        except RuntimeError as error:
            if not is_irreproducible(error):
                raise
            print(f"training: two runs may differ in the last bits: {reason_of(error)}",
                  file=sys.stderr)  # fmt: skip
            self._undo()
            self._is_strict = False
            return self._once(parts)

    def _once(self, parts: Sequence[B]) -> Tensor:
        prepared = [self._prepare(part, n, len(parts)) for n, part in enumerate(parts)]
        return self._run([on_device(part, self._accelerator.device) for part in prepared])

    def _prepare(self, part: B, number: int, num_parts: int) -> B:
        """Every part and process begins with the same seed, and takes its share of the choices."""
        torch.manual_seed(self._seed + 1_000_003 * self._state.step)
        prepare = getattr(self._objective, "prepare", None)
        if prepare is None:
            return part
        rank, num_processes = self._accelerator.process_index, self._accelerator.num_processes
        return prepare(part, rank + number * num_processes, num_parts * num_processes)

    def _set_learning_rate(self, rate: float) -> None:
        for group in self._state.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # a recorded step reads it there
            else:
                group["lr"] = rate

    def _optimise(self, parts: Sequence[B]) -> Tensor:
        """Forward and backward of every part, then the update; this is what is recorded."""
        accelerator, optimizer = self._accelerator, self._state.optimizer
        values = [
            self._backward(part, len(parts), is_last=index == len(parts) - 1)
            for index, part in enumerate(parts)
        ]
        accelerator.clip_grad_norm_(self._trainable, self._settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return values[0] if len(values) == 1 else torch.stack(values).mean(0)

    def _backward(self, part: B, num_parts: int, *, is_last: bool) -> Tensor:
        accelerator = self._accelerator
        # Several processes exchange gradients once a step, with the last part.
        alone = contextlib.nullcontext() if is_last else accelerator.no_sync(self._model)
        with alone:
            terms = self._objective(self._model, part)
            self.names = tuple(terms)
            values = accelerator.reduce(torch.stack([t.detach() for t in terms.values()]), "mean")
            loss = sum(terms.values())
            accelerator.backward(loss if num_parts == 1 else loss / num_parts)
        return values

    def _undo(self) -> None:
        self._state.optimizer.zero_grad(set_to_none=True)


@dataclass
class Losses:
    """Loss terms that were not looked at yet."""

    names: Callable[[], tuple[str, ...]]
    pending: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, step: int, values: Tensor) -> None:
        """The terms [k] after `step` steps."""
        self.pending.append((step, values))

    def read(self) -> dict[str, float]:
        """`loss` and the terms of the last step added; waits for the device.

        Raises DistilleryError that names the step and the term which was not finite first.
        """
        rows = torch.stack([values for _, values in self.pending]).tolist()
        steps, self.pending = [step for step, _ in self.pending], []
        for step, row in zip(steps, rows, strict=True):
            named = dict(zip(self.names(), row, strict=True))
            require_finite(named, step)
        return {"loss": sum(named.values()), **named}


def require_finite(terms: dict[str, float], step: int) -> None:
    """Raise DistilleryError for a term that is no number."""
    for name, value in terms.items():
        if not math.isfinite(value):
            raise DistilleryError(
                f"training: loss term {name} is {value} at step {step}; lower the learning rate "
                "or raise the precision"
            )
