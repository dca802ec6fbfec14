"""A sampling step as its device runs it quickest: as it is, compiled, or recorded once per shape.

In: a step, a `Runtime`. Out: a function of the same inputs and results. Not here: the loop.
"""

from typing import Any

from torch import Tensor

from distillery.core.runtime import (
    CompileError,
    Runtime,
    captured,
    compiling,
    records,
    tell,
    uncompiled,
)
from distillery.models.compiled_blocks import with_compiled_blocks
from distillery.sampling.ddim import Run, Step


def in_runtime(step: Step, wanted: Runtime, num_rows: int) -> Run:
    """The step, `num_rows` evaluations at once, on the device of its U-Net."""
    device = step.unet.device
    runtime = wanted.on(device)
    for network in (step.unet, step.controlnet):
        if network is not None:
            runtime.lay_out(network, num_rows)
    run: Run = _Compiled(step) if runtime.kind == "compile" else step
    return captured(run, runtime.kind) if records(runtime.kind, device) else run


class _Compiled:
    """The step with its networks' blocks compiled; as it was where the compiler can't do it."""

    def __init__(self, step: Step) -> None:
        self._eager, self._run = step, with_compiled_blocks(step)
        self._instead = uncompiled(step.unet.device)

    def __call__(self, *inputs: Any) -> Tensor:
        if self._run is self._eager:
            return self._eager(*inputs)
        try:
            with compiling():
                return self._run(*inputs)
        except CompileError as error:
            tell("compile", f"the model can't be compiled ({error})", self._instead)
            self._run = self._eager
            return self._eager(*inputs)
