"""What stands in for CUDA graphs on the CPU: it holds to their discipline and tells who does not.

Recording changes nothing and gives results that are not there yet, of the form that the last call
op by op had; replaying runs the function on the tensors it was recorded with and writes the results
there.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from distillery.core import runtime
from distillery.core.runtime import Captures, Kind
from distillery.core.trees import mapped, tensors_in


class FakeGraphs:
    """Counts what it recorded and replayed; `error` is what recording raises."""

    def __init__(self, error: str | None = None) -> None:
        self.num_recorded = self.num_replayed = self.num_warm_ups = 0
        self.error, self._last = error, None

    def warm_up(self, run: Callable[[], Any]) -> Any:
        self.num_warm_ups += 1
        self._last = run()
        return self._last

    def record(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        if self.error:
            raise RuntimeError(self.error)
        self.num_recorded += 1
        output = mapped(self._last, lambda t: torch.full_like(t, float("nan")).detach())

        def replay() -> None:
            self.num_replayed += 1
            for old, new in zip(tensors_in(output), tensors_in(run()), strict=True):
                old.copy_(new.detach())

        return replay, output


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, user: Any, graphs: FakeGraphs) -> None:
    """Let the module `user` believe that this device records."""

    def captured(
        run: Callable[..., Any], kind: Kind, num_warm_up: int = 1, undo: Callable = lambda: None
    ) -> Captures:
        return Captures(run, graphs, num_warm_up=num_warm_up, kind=kind, undo=undo)

    monkeypatch.setattr(runtime, "usable", lambda kind, device: kind)
    for name, stand_in in (
        ("captured", captured),
        ("records", lambda kind, device: kind != "eager"),
        ("usable", lambda kind, device: kind),
    ):
        monkeypatch.setattr(user, name, stand_in, raising=False)


def make_input(value: float) -> torch.Tensor:
    """A tensor that the caller may do with as it likes."""
    return torch.full((3,), float(value))
