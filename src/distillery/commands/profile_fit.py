"""`distillery profile --memory-gb`: how much of a training step fits a device, and what to set.

In: an architecture, training rows, a size. Out: a dict for JSON; `profile_text` prints it. Memory
is predicted; nothing is run, so that no device is needed.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from distillery.commands.profile import NATIVE_PX, choose_rows, require_weights
from distillery.core.errors import DistilleryError
from distillery.core.precision import read_precision
from distillery.core.runtime import Kind
from distillery.cost.accounting import load_architecture
from distillery.cost.full_size.fit import fit_rows
from distillery.cost.full_size.setup import Predictions, Setup, usual_folder
from distillery.cost.full_size.training import ROWS


def fit(
    preset: str,
    rows: str,
    memory_gb: float,
    *,
    runtimes: Sequence[Kind] = ("eager",),
    batch_size: int = 1,
    resolution_px: int | None = None,
    dtype: str = "fp32",
    weights: str = "fp32",
    checkpointing: bool = False,
) -> dict[str, Any]:
    """Which part of a step of each training row fits a device; memory is predicted, nothing is run.

    The arguments are those of `profile`; with `checkpointing` no part is without. Raises
    DistilleryError for unknown names, none that trains, or a resolution that does not fit.
    """
    if tuple(runtimes) != ("eager",):
        raise DistilleryError("--runtime: nothing is run with --memory-gb; leave one of them out")
    if not math.isfinite(memory_gb):
        raise DistilleryError(f"--memory-gb: {memory_gb} is no size; write that of the device")
    dtype = read_precision(dtype, "--dtype")
    require_weights(weights, dtype, is_run=False)
    names = [name for name in choose_rows(rows) if name in ROWS]
    if not names:
        raise DistilleryError(
            f"--rows {rows}: --memory-gb fits training steps, and none is named; use "
            f"{', '.join(['training', *ROWS])}"
        )
    setup = Setup(
        torch.device("meta"), resolution_px or NATIVE_PX.get(preset, 512), batch_size,
        dtype=dtype, weights=weights, checkpointing=checkpointing,
        predictions=Predictions(usual_folder()),
    )  # fmt: skip
    settings = {
        "preset": preset, "memory_gb": memory_gb, "batch_size": batch_size, "dtype": dtype,
        "resolution_px": setup.resolution_px,
    }  # fmt: skip
    return {
        "settings": settings,
        "fits": fit_rows(names, load_architecture(preset), setup, memory_gb * 1e9),
    }
