"""A second device that computes on the CPU, and refuses operands that lie on both.

Stands in for CUDA where there is none: a tensor on it wraps one of the CPU's, and what a CUDA build
would refuse (a bias on the CPU for an input on the GPU) raises `MixedDevicesError`. Importing this
module registers the device for the rest of the process; as a command it runs stages there.

python tests/pretend_device.py < script    `python -m distillery.stages.X ...`, one a line
"""

import importlib
import os
import shlex
import sys
from typing import Any

import torch
from torch.utils import backend_registration

NAME = "pretend"
backend_registration._setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
_aten = torch.ops.aten
_COPYING = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {  # a tensor of the device may be indexed from the CPU, not the other way round
    _aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default,
    _aten._index_put_impl_.default,
}  # fmt: skip


class MixedDevicesError(RuntimeError):
    """Operands of one operator lie on two devices."""


class PretendTensor(torch.Tensor):
    """A tensor on the device; `inner` holds its values."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "PretendTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=DEVICE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"PretendTensor({self.inner!r})"

    def tolist(self) -> list:
        """Copied to the CPU, as CUDA's `tolist` does."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute on the inner tensors; the result is on the device unless it was sent to the CPU."""
    ours: dict[int, PretendTensor] = {}
    strangers: list[torch.Tensor] = []
    inner_args = _unwrap(args, ours, strangers)
    inner_kwargs = {name: _unwrap(value, ours, strangers) for name, value in kwargs.items()}
    if "pin_memory" in inner_kwargs:
        inner_kwargs["pin_memory"] = None
    allowed = func in _COPYING or (func in _INDEXING and isinstance(args[0], PretendTensor))
    if strangers and ours and not allowed:
        shapes = [tuple(stranger.shape) for stranger in strangers]
        raise MixedDevicesError(f"{func}: operands of {shapes} on the CPU, others on {NAME}")
    result = func(*inner_args, **inner_kwargs)
    if func is _aten.copy_.default:
        return args[0]
    wanted = kwargs.get("device")
    if wanted is not None and torch.device(wanted).type == "cpu":
        return result
    return _wrap(result, ours)


def _unwrap(value: Any, ours: dict[int, PretendTensor], strangers: list[torch.Tensor]) -> Any:
    """What the CPU computes with; notes which tensors were ours and which were the CPU's."""
    if isinstance(value, PretendTensor):
        ours[id(value.inner)] = value
        return value.inner
    if isinstance(value, torch.Tensor):
        if value.dim() and value.device.type == "cpu":
            strangers.append(value)  # without dimensions it would be a number to CUDA too
        return value
    if isinstance(value, (list, tuple)):
        return type(value)([_unwrap(item, ours, strangers) for item in value])
    is_ours = isinstance(value, torch.device) and value.type == NAME
    return torch.device("cpu") if is_ours else value


def _wrap(value: Any, ours: dict[int, PretendTensor]) -> Any:
    """The same on the device; a tensor that was changed in place is the one it was."""
    if isinstance(value, torch.Tensor) and not isinstance(value, PretendTensor):
        known = ours.get(id(value))
        return PretendTensor(value) if known is None else known
    if isinstance(value, (list, tuple)):
        return type(value)([_wrap(item, ours) for item in value])
    return value


_library = torch.library.Library("aten", "IMPL")


def _empty(size: list[int], *, dtype=None, memory_format=None, **_: Any) -> PretendTensor:
    contiguous = memory_format or torch.contiguous_format
    return PretendTensor(torch.empty(size, dtype=dtype, memory_format=contiguous))


def _empty_strided(size: list[int], stride: list[int], *, dtype=None, **_: Any) -> PretendTensor:
    return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking=False) -> torch.Tensor:
    """What `torch.tensor(values, device=...)` ends in."""
    getattr(target, "inner", target).copy_(getattr(source, "inner", source))
    return target


_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")


def run_stages(commands: list[list[str]]) -> None:
    """Run `[module, arguments...]` one after the other, all on the device."""
    from distillery.core import device
    from distillery.cost import profile
    from distillery.train import preview

    os.environ["ACCELERATE_TORCH_DEVICE"] = str(DEVICE)
    device.claim_device = lambda name: DEVICE  # before the stages import it by name
    # Half of the time, and nothing of it new: further steps of pictures, counts without a device.
    preview.NUM_STEPS, profile._paper_counts = 1, dict
    for name, *arguments in commands:
        module = importlib.import_module(name)
        assert getattr(module, "claim_device", device.claim_device) is device.claim_device
        getattr(module, name.rpartition(".")[2]).main(arguments)


if __name__ == "__main__":
    lines = [shlex.split(line) for line in sys.stdin]
    run_stages([words[words.index("-m") + 1 :] for words in lines if "-m" in words])
