"""What batch fits a memory: how many samples a step of each training row can take at once.

In: rows, an architecture on meta, bytes of a device. Out: for each row the largest equal part of a
step that fits, with and without gradient checkpointing, and the settings of `training` that say so.
Nothing is measured: memory is predicted.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from distillery.core.progress import bar
from distillery.cost.full_size.setup import Setup
from distillery.cost.full_size.training_run import predicted_peak

# On an H100 training took up to 6.9% more than predicted (docs/results.md), and a process holds
# about 0.6 GB before it allocates anything: CUDA's context and the libraries' workspaces.
MARGIN, CONTEXT_BYTES = 1.08, 600_000_000
MIN_PART = 4  # smaller parts leave a GPU idle; checkpointing then costs less


def fit_rows(
    names: list[str], parts: Mapping[str, nn.Module], setup: Setup, memory_bytes: float
) -> dict[str, dict[str, Any]]:
    """For each row how much of a step of `setup.batch_size` samples fits, and what to set."""
    with bar(len(names), "profile", unit="row") as progress:
        found = {}
        for name in names:
            found[name] = _fit(name, parts, setup, memory_bytes)
            progress.update()
        return found


def _fit(
    name: str, parts: Mapping[str, nn.Module], setup: Setup, memory_bytes: float
) -> dict[str, Any]:
    """`plain` and `checkpointing`: the largest part, 0 for none, None where it was not asked for;
    `settings` None if none fits. A setup that recomputes activations asks for no plain one."""
    plain = recomputed = None
    if not setup.checkpointing:
        plain = _largest(name, parts, setup, memory_bytes)
    if plain is None or plain < min(MIN_PART, setup.batch_size):
        recomputed = _largest(name, parts, replace(setup, checkpointing=True), memory_bytes)
    part = max(plain or 0, recomputed or 0)
    settings = _settings(part, setup, checkpointing=part > (plain or 0)) if part else None
    return {"plain": plain, "checkpointing": recomputed, "settings": settings}


def _settings(part: int, setup: Setup, *, checkpointing: bool) -> dict[str, Any]:
    """Keys of `training` for a step in parts of `part` samples."""
    return {
        "batch_size": setup.batch_size,
        "accumulate_steps": setup.batch_size // part,
        "gradient_checkpointing": checkpointing,
        "precision": setup.dtype,
        **({"weights": setup.weights} if setup.weights != "fp32" else {}),
    }


def _largest(name: str, parts: Mapping[str, nn.Module], setup: Setup, memory_bytes: float) -> int:
    """The largest divisor of the step's samples that fits; memory grows with it."""
    room = (memory_bytes - CONTEXT_BYTES) / MARGIN
    sizes = [n for n in range(setup.batch_size, 0, -1) if setup.batch_size % n == 0]
    for size in sizes:
        if predicted_peak(name, parts, replace(setup, batch_size=size)) <= room:
            return size
    return 0
