"""Skeletons have the model's shapes, draw nothing, and leave what is real as it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from distillery.models.skeleton import Unfilled, on_meta, without_weights


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _made(context: Callable[[], AbstractContextManager]) -> tuple[nn.Module, set[str]]:
    """A layer and a norm, and the operators that making them took."""
    with _Operators() as seen, context():
        made = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    return made, seen.names


@pytest.mark.parametrize(("context", "is_real"), [(on_meta, False), (without_weights, True)])
def test_nothing_is_drawn_for_tensors_without_values(context, is_real: bool) -> None:
    made, operators = _made(context)
    assert not any("uniform" in name for name in operators)
    assert all(parameter.is_meta for parameter in made.parameters())
    assert made[1].running_mean.is_meta != is_real
    plain, operators = _made(lambda: torch.device("meta"))
    assert any("uniform" in name for name in operators)
    shapes, others = ({n: p.shape for n, p in m.named_parameters()} for m in (made, plain))
    assert shapes == others


def test_real_tensors_are_filled_from_the_same_draws() -> None:
    torch.manual_seed(5)
    plain, rest = nn.Linear(3, 4), torch.rand(2)
    torch.manual_seed(5)
    with Unfilled():
        nn.Linear(7, 7, device="meta")
        layer = nn.Linear(3, 4)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(torch.rand(2), rest)
