"""One job in several runtimes: each made ready, all timed, the quickest named.

In: a job of fixed inputs, runtimes, a device. Out: seconds by runtime, and which is least. Not
here: what the jobs compute.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from distillery.core.runtime import (
    Captures,
    CompileError,
    Kind,
    captured,
    compiling,
    records,
    tell,
    usable,
)
from distillery.cost.timing import Seconds
from distillery.models.compiled_blocks import with_compiled_blocks

Job = Callable[[], object]
NUM_WARM_UP = 3  # calls before a job is recorded: an optimiser's state, workspaces


def usable_runtimes(wanted: Sequence[Kind], device: torch.device) -> tuple[Kind, ...]:
    """Those that the device has, each once; the others are named on standard error."""
    return tuple(dict.fromkeys(usable(kind, device) for kind in wanted))


def ready(job: Job, kind: Kind, device: torch.device) -> Job | None:
    """The job in a runtime, called until nothing of it is left to make; None if that fails."""
    if kind == "compile":
        job = with_compiled_blocks(job)
    run = captured(job, kind, NUM_WARM_UP) if records(kind, device) else job
    try:
        with compiling():
            for _ in range(1 if kind == "eager" else NUM_WARM_UP + 2):
                run()
    except CompileError as error:
        tell(kind, f"it can't be compiled ({error})")
        return None
    return None if isinstance(run, Captures) and run.gave_up else run


def quickest(seconds: Mapping[Kind, Seconds], clock: str) -> Kind:
    """The runtime whose median is least, by `wall` or `processor` time."""
    return min(seconds, key=lambda kind: statistics.median(getattr(seconds[kind], clock)))
