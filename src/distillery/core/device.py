"""Which device a process computes on: the CPU, or one CUDA device of its own.

In: `cpu` or `cuda`. Out: a torch device. A workflow engine gives a number of GPUs, not which ones,
so a process claims a free one by a file lock that the system drops when the process ends. Under
torchrun the local rank decides.
"""

import contextlib
import fcntl
import functools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from distillery.core.errors import DistilleryError

_POLL_S = 1.0


@functools.cache
def claim_device(device: str) -> torch.device:
    """The CPU, or the first free visible CUDA device; waits while all are claimed.

    A process that asks again gets the same one. Raises DistilleryError where CUDA can't be had.
    """
    check_launcher()
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DistilleryError("device: cuda: no CUDA device is visible; set device: cpu")
    index = int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else _claim_free()
    torch.cuda.set_device(index)
    _compute_reproducibly()
    return torch.device("cuda", index)


def _compute_reproducibly() -> None:
    """CUDA kernels whose results do not change from run to run; PyTorch warns where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads any
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def strictly_reproducible() -> Iterator[None]:
    """Kernels whose results change from run to run are refused meanwhile, with a RuntimeError.

    Only then does PyTorch give attention a reproducible backward pass. `is_irreproducible` knows
    the error.
    """
    is_on = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_on, warn_only=warns)


def is_irreproducible(error: RuntimeError) -> bool:
    """Whether PyTorch refused an operation that has no reproducible form."""
    return "use_deterministic_algorithms" in str(error)


def num_processes() -> int:
    """How many processes the launcher says there are; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_launcher() -> None:
    """Refuse `accelerate launch --cpu`, which silently runs one process of the several asked for.

    Raises DistilleryError.
    """
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "WORLD_SIZE" not in os.environ:
        raise DistilleryError(
            "accelerate launch on the CPU starts a single process whatever is asked for; "
            "use torchrun --standalone --nproc_per_node N"
        )


def _claim_free() -> int:
    told = False
    while True:
        for index in range(torch.cuda.device_count()):
            if _try_lock(str(torch.cuda.get_device_properties(index).uuid)):
                return index
        if not told:
            print("waiting for a free CUDA device", file=sys.stderr)
            told = True
        time.sleep(_POLL_S)


_held: list[IO[str]] = []


def _try_lock(name: str) -> bool:
    """Lock a file of this name for the rest of the process's life; False if another holds it."""
    folder = Path(tempfile.gettempdir()) / f"distillery-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = (folder / f"{name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held.append(file)
    return True
