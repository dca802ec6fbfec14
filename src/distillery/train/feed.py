"""Batches on their way to the device: read ahead in a thread, cut into parts, copied over.

In: batches as a function of the step. Out: the parts of every step's batch in turn, on the CPU (for
CUDA in memory that copies without waiting), and the same on the device. Not here: which items make
up a batch.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from distillery.core.trees import mapped
from distillery.diffusion.batch import Movable

B = TypeVar("B", bound=Movable)


class Batches(Protocol[B]):
    """What a training reads, a function of the step alone; `Shuffled` is that of samples."""

    def __len__(self) -> int: ...

    def at(self, step: int, share: int, num_shares: int) -> B:
        """One of equal shares of a step's batch, on the CPU; called in a thread."""
        ...


def ahead(
    batches: Batches[B], start: int, end: int, num_parts: int, accelerator: Accelerator
) -> Iterator[list[B]]:
    """This process's parts of every step's batch, read one step ahead.

    All parts of all processes are the step's batch, whatever their number.
    """
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    num_shares = num_processes * num_parts

    def load(step: int) -> list[B]:
        shares = range(rank, num_shares, num_processes)
        parts = [batches.at(step, share, num_shares) for share in shares]
        return mapped(parts, pinned) if accelerator.device.type == "cuda" else parts

    with ThreadPoolExecutor(max_workers=1) as pool:
        next_parts = [pool.submit(load, step) for step in range(start, min(start + 1, end))]
        for step in range(start, end):
            parts = next_parts.pop().result()
            if step + 1 < end:
                next_parts.append(pool.submit(load, step + 1))
            yield parts


def pinned(tensor: Tensor) -> Tensor:
    """A copy in page-locked memory, which a GPU reads without the host waiting."""
    return tensor if tensor.is_pinned() else tensor.pin_memory()


def on_device(part: B, device: torch.device) -> B:
    """The same on the device; to CUDA it goes while the host goes on."""
    if device.type != "cuda":
        return part.to(device)
    return mapped(part, lambda tensor: pinned(tensor).to(device, non_blocking=True))
