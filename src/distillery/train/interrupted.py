"""Where a training ends when a signal comes: after a step, which is the same in all processes.

In: the state of a training. Out: whether the step that it has just taken is its last one for now.
The signal does what it would have done when the block is left, after the state was saved. A
training with nothing to save ends at once: its first steps may take minutes to compile. Not here:
saving.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator

from distillery.core.interrupts import held
from distillery.train.state import TrainState

__computes__ = False  # what was interrupted goes on as if it were not


@contextlib.contextmanager
def interrupted(state: TrainState, accelerator: Accelerator) -> Iterator[Callable[[], bool]]:
    """A function to be called after every step, of one answer in all processes.

    Several of them tell one another of a signal, and hear of it a step late: nothing waits for
    another process or the device.
    """
    is_alone = accelerator.num_processes == 1
    told: list[torch.Tensor] = []

    with held(lambda: is_alone and state.step == state.saved_step) as waiting:

        def ends() -> bool:
            if is_alone:
                return waiting.number is not None
            own = torch.full((), float(waiting.number is not None), device=accelerator.device)
            told.append(accelerator.reduce(own, "sum"))
            if len(told) == 1 or not told.pop(0).item():
                return False
            waiting.number = waiting.number or signal.SIGTERM
            return True

        yield ends
