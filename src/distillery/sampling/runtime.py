"""A sampling step as its device runs it quickest: as it is, compiled, or recorded once per shape.

In: a step, a `Runtime`. Out: a function of the same inputs and results. Not here: the loop.
"""

from distillery.core.runtime import Runtime, captured, records, uncompiled
from distillery.models.compiled_blocks import Compiled
from distillery.sampling.ddim import Run, Step


def in_runtime(step: Step, wanted: Runtime, num_rows: int) -> Run:
    """The step, `num_rows` evaluations at once, on the device of its U-Net."""
    device = step.unet.device
    runtime = wanted.on(device)
    for network in (step.unet, step.controlnet):
        if network is not None:
            runtime.lay_out(network, num_rows)
    run: Run = Compiled(step, uncompiled(device)) if runtime.kind == "compile" else step
    return captured(run, runtime.kind) if records(runtime.kind, device) else run
