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
def interrupted(state: TrainState, accelerator: Accelerator) -> Iterator[Callable[[bool], bool]]:
    """A function to be called after every step, of one answer in all processes.

    It is told whether losses are looked at, when the host waits for the device anyway: only then do
    several processes tell one another of a signal.
    """
    is_alone = accelerator.num_processes == 1

    with held(lambda: is_alone and state.step == state.saved_step) as waiting:

        def ends(is_looked_at: bool) -> bool:
            if is_alone:
                return waiting.number is not None
            if not is_looked_at:
                return False
            own = torch.full((), float(waiting.number is not None), device=accelerator.device)
            if not accelerator.reduce(own, "sum").item():
                return False
            waiting.number = waiting.number or signal.SIGTERM
            return True

        yield ends
