"""All that a training is at one step, and its checkpoint.

In and out: `TrainState` and a folder of safetensors and JSON, no pickle. What is a function of the
step alone (data order, noise, learning rate, random seeds) is not stored. Only what is trained is:
a frozen backbone or a teacher never enters a checkpoint.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distillery.core.artifacts import hash_files, read_json, write_json
from distillery.core.errors import DamagedError
from distillery.core.publishing import publish, room_for
from distillery.train.logs import History

_PREFIX = "step-"
_HASHES = "sha256.json"


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that the optimiser gets, in order."""
    return [p for p in model.parameters() if p.requires_grad]


class Average:
    """Exponential moving average of weights, following more closely at first.

    The decay at step n is min(decay, (1 + n) / (10 + n)), as in diffusers' EMAModel, whose import
    would cost seconds.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.weights = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        """Move towards the weights after `step` updates."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, list(parameters), 1 - decay)

    @torch.no_grad()
    def swap(self, parameters: Sequence[nn.Parameter]) -> None:
        """Exchange the averaged weights with the model's."""
        for mine, theirs in zip(self.weights, parameters, strict=True):
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)


@dataclass
class TrainState:
    """Model, optimiser, average of the weights, loss scale, step and what was logged so far.

    `saved_step` is that of its checkpoint; the start needs none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None = None
    scaler: Any = None
    step: int = 0
    history: History = field(default_factory=dict)
    saved_step: int = 0

    def trained(self) -> dict[str, Tensor]:
        """Trainable parameters and buffers by name; a shared one once."""
        tensors = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        return {**tensors, **dict(self.model.named_buffers())}

    def save(self, folder: Path) -> None:
        """Write `folder/step-<n>`, then drop older ones: at any moment one is complete."""
        name = f"{_PREFIX}{self.step:08d}"
        with publish(folder / name) as partial:
            partial.mkdir()
            _save(partial / "model.safetensors", self.trained())
            _save(partial / "optimizer.safetensors", _flatten(self.optimizer))
            if self.average is not None:
                _save(partial / "average.safetensors", _by_index(self.average.weights))
            scaler = self.scaler.state_dict() if self.scaler is not None else {}
            rest = {"step": self.step, "history": self.history, "scaler": scaler}
            write_json(partial / "state.json", rest)
            write_json(partial / _HASHES, hash_files(partial))
        self.saved_step = self.step
        for old in _checkpoints(folder):
            if old.name != name:
                shutil.rmtree(old)

    def restore(self, folder: Path) -> bool:
        """Go on from the newest checkpoint below `folder`; False where there is none.

        Raises DamagedError when it can't be read; removing it starts the training anew.
        """
        if not (checkpoints := _checkpoints(folder)):
            return False
        newest = checkpoints[-1]
        require_undamaged(newest)
        try:
            rest = read_json(newest / "state.json")
            with torch.no_grad():
                _copy(load_file(newest / "model.safetensors"), self.trained())
                _unflatten(load_file(newest / "optimizer.safetensors"), self.optimizer)
                if self.average is not None:
                    average = load_file(newest / "average.safetensors")
                    _copy(average, _by_index(self.average.weights))
        except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
            raise DamagedError(f"{newest}: unreadable ({error}); remove it to start anew") from None
        if self.scaler is not None and rest["scaler"]:
            self.scaler.load_state_dict(rest["scaler"])
        self.step, self.history = rest["step"], rest["history"]
        self.saved_step = self.step
        return True


def require_undamaged(checkpoint: Path) -> None:
    """Compare every file with the sha256 that was recorded when it was written."""
    found = hash_files(checkpoint)
    found.pop(_HASHES, None)
    recorded = read_json(checkpoint / _HASHES, remedy="remove the folder to start anew")
    if damaged := sorted(n for n in found | recorded if found.get(n) != recorded.get(n)):
        raise DamagedError(
            f"{checkpoint / damaged[0]}: damaged, its bytes are not those that were recorded; "
            f"remove {checkpoint} to start anew"
        )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    with room_for(path, sum(t.nbytes for t in tensors.values())):
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, path)


def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _by_index(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {str(index): tensor for index, tensor in enumerate(tensors)}


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter index>.<name>` to tensor; numbers become 0-d float64 tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def _unflatten(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Moments get the memory layout of their parameter: fused Adam walks both in storage order."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, inner = name.split(".", 1)
        like = parameters[int(index)]
        if tensor.shape == like.shape:
            tensor = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)
        state.setdefault(int(index), {})[inner] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
