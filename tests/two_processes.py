"""A training on two processes against the same on one: they must take the same steps.

Compared is what the weights moved by in two steps of plain gradient descent, in float64. Under Adam
a gradient that is rounding alone moves a weight as far as any other: in float32 two orders of
summation part by up to the learning rate, whatever the code does. Processes are forks of this one,
which torch.distributed joins by gloo: nothing is imported anew.
"""

import gc
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distillery.core.trees import mapped
from distillery.train import loop, seeds
from distillery.train.settings import Settings
from distillery.train.state import trainable

# Of a tensor's largest move. Found: 1e-16 to 1e-11, 3e-8 where a term is in float32.
TOLERANCE = 1e-6
STEPS = 2
Train = Callable[[Path], object]


class _Float64:
    """Batches in float64."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def at(self, *place: int) -> Any:
        def widened(tensor: Tensor) -> Tensor:
            return tensor.double() if tensor.is_floating_point() else tensor

        return mapped(self._batches.at(*place), widened)


def in_processes(count: int, store: Path, work: Callable[[int], object]) -> None:
    """`work(rank)` in each of `count` forks of this process, which are one group by a file."""
    children = []
    for rank in range(count):
        if (child := os.fork()) == 0:
            status = 1
            try:
                _join(rank, count, store)
                work(rank)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


def require_same_steps(train: Train, folder: Path) -> None:
    """`train(out)`, a training of `STEPS` steps by `train_seeds`, moves all weights alike.

    Its first seed is what counts; it ends there.
    """
    for count in (1, 2):
        store = folder / f"store-{count}"
        in_processes(count, store, lambda rank, n=count: _train(train, folder, f"{n}-{rank}"))
    alone, *both = (load_file(folder / name) for name in ("1-0", "2-0", "2-1"))
    assert any(move.any() for move in alone.values())
    for name, move in alone.items():
        assert move.dtype == torch.float64
        for other in both:
            assert (other[name] - move).abs().max() <= TOLERANCE * move.abs().max(), name


def _join(rank: int, count: int, store: Path) -> None:
    """Be one of a group as under torchrun."""
    torch.set_num_threads(1)
    if count == 1:
        return
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}  # fmt: skip
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count
    )
    AcceleratorState._reset_state(reset_partial_state=True)


class _DoneError(Exception):
    """The steps are taken; nothing after them is of interest."""


def _train(train: Train, folder: Path, name: str) -> None:
    def fit(model: nn.Module, objective: Any, batches: Any, *others: Any, **options: Any) -> None:
        for module in gc.get_objects():
            if isinstance(module, nn.Module):
                module.double()
        before = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
        options.pop("validate", None)
        loop.fit(model.double(), objective, _Float64(batches), *others, **options)
        after = dict(model.named_parameters())
        save_file(
            {key: after[key].detach() - start for key, start in before.items()}, folder / name
        )
        raise _DoneError

    def descent(settings: Settings, model: nn.Module, **_: Any) -> torch.optim.SGD:
        return torch.optim.SGD(trainable(model), lr=settings.learning_rate)

    seeds.fit, Settings.make_optimizer = fit, descent
    try:
        train(folder / f"model-{name}")
    except _DoneError:
        return
    raise AssertionError("it was not trained by train_seeds")
