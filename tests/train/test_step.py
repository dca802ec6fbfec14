"""A step: parts add up to their batch, the host waits only where it must, recordings agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from distillery.core.errors import DistilleryError
from distillery.core.runtime import CompileError
from distillery.diffusion.batch import Batch
from distillery.models import compiled_blocks
from distillery.train import loop, step
from fake_graphs import FakeGraphs, pretend_cuda
from toy import ToySamples, train

_SYNCHRONISING = ("_local_scalar_dense", "nonzero")


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_gradients_of_parts_are_those_of_the_whole_batch(tmp_path: Path, monkeypatch):
    gradients: dict[int, list[Tensor]] = {}
    for parts in (1, 4):
        found = gradients.setdefault(parts, [])
        clip = torch.nn.utils.clip_grad_norm_

        def spy(parameters, *args, found=found, clip=clip, **options):
            found.append(torch.cat([p.grad.flatten().clone() for p in parameters]))
            return clip(parameters, *args, **options)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
        options = {"batch_size": 16, "accumulate_steps": parts, "steps": 1, "dropout": 0.0}
        train(tmp_path / str(parts), **options)
        monkeypatch.undo()
    (whole,), (added,) = gradients[1], gradients[4]
    assert float((whole - added).abs().max()) < 1e-6 * float(whole.abs().max())


def test_parts_are_the_same_items_in_the_same_steps(tmp_path: Path):
    seen, histories = [], []
    for parts in (1, 3):
        samples = ToySamples()
        _, history = train(tmp_path / str(parts), samples, accumulate_steps=parts, dropout=0.0)
        items = samples.seen[4:]  # after the validation batch
        seen.append([sorted(items[start : start + 6]) for start in range(0, len(items), 6)])
        histories.append(history)
    assert seen[0] == seen[1]
    assert [e["step"] for e in histories[0]["train"]] == [e["step"] for e in histories[1]["train"]]
    losses = [[entry["loss"] for entry in history["train"]] for history in histories]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_parts_that_do_not_make_the_batch_are_refused(tmp_path: Path):
    with pytest.raises(DistilleryError, match=r"batch_size: 6 .* 4 parts each"):
        train(tmp_path, accumulate_steps=4)


class _Watch(TorchDispatchMode):
    """Notes at which step the host asked the device for a value."""

    def __init__(self, now: list[int]) -> None:
        super().__init__()
        self.now, self.asked = now, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in _SYNCHRONISING:
            self.asked.add(self.now[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def _watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The steps at which anything was read; checkpoints and validations do not count."""
    now, tolist = [0], Tensor.tolist
    watch = _Watch(now)

    def noted(tensor: Tensor) -> list:
        watch.asked.add(now[0])
        return tolist(tensor)

    def update(self, parts, call=step.Step.__call__):
        now[0] = self._state.step + 1
        return call(self, parts)

    monkeypatch.setattr(Tensor, "tolist", noted)
    monkeypatch.setattr(step.Step, "__call__", update)
    monkeypatch.setattr(loop, "_save", lambda *_: None)
    with watch:
        yield watch.asked
    monkeypatch.undo()


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_the_host_waits_only_when_losses_are_looked_at(tmp_path, monkeypatch, accumulate_steps):
    monkeypatch.setattr(loop, "MAX_LOGGED_STEPS", 4)
    changed = {"steps": 40, "checkpoint_every_steps": 15, "validate_every_steps": 40}
    with _watching(monkeypatch) as asked:
        monkeypatch.setattr(loop, "MAX_LOGGED_STEPS", 4)
        _, history = train(
            tmp_path, accumulate_steps=accumulate_steps, validate=lambda model: {}, **changed
        )
    assert asked <= {0, 10, 15, 20, 30, 40}
    assert 10 in asked
    assert [entry["step"] for entry in history["train"]] == [10, 20, 30, 40]


def test_a_loss_that_was_not_looked_at_is_named_all_the_same(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(loop, "MAX_LOGGED_STEPS", 4)
    calls = []

    def broken(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(1)
        loss = next(model.parameters()).sum()
        return {"fine": loss * 0, "bad": loss * (float("nan") if len(calls) == 8 else 1)}

    settings = {"checkpoint_every_steps": 20, "validate_every_steps": 20}
    with pytest.raises(DistilleryError, match=r"loss term bad is nan at step 8"):
        train(tmp_path, objective=broken, validate=lambda model: {}, **settings)
    assert len(calls) == 10


def test_recorded_steps_train_as_eager_ones(tmp_path: Path, monkeypatch):
    eager, history = train(tmp_path / "eager", steps=20)
    graphs = FakeGraphs()
    pretend_cuda(monkeypatch, step, graphs)
    recorded, recorded_history = train(tmp_path / "graph", steps=20, runtime="graph")
    assert graphs.num_warm_ups == step.WARM_UP_STEPS
    assert graphs.num_recorded == 1
    assert graphs.num_replayed == 20 - step.WARM_UP_STEPS
    torch.testing.assert_close(_weights(recorded), _weights(eager), rtol=1e-5, atol=1e-7)
    losses = [[e["loss"] for e in h["train"]] for h in (history, recorded_history)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_step_that_cannot_be_recorded_trains_eagerly(tmp_path: Path, monkeypatch, capsys):
    eager, _ = train(tmp_path / "eager", steps=6)
    pretend_cuda(monkeypatch, step, FakeGraphs("cudaErrorStreamCaptureUnsupported"))
    fallen, _ = train(tmp_path / "graph", steps=6, runtime="graph")
    assert capsys.readouterr().err.count("running eagerly") == 1
    torch.testing.assert_close(_weights(fallen), _weights(eager), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("changed", "why"),
    [({}, "need a CUDA device"), ({"precision": "bf16"}, "need a CUDA device")],
)
def test_graphs_on_a_cpu_train_eagerly_and_say_so(tmp_path: Path, capsys, changed, why):
    model, _ = train(tmp_path / "a", steps=3, **changed)
    capsys.readouterr()
    other, _ = train(tmp_path / "b", steps=3, runtime="graph", **changed)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "runtime" in line]
    assert why in line
    assert torch.equal(_weights(model), _weights(other))


@pytest.mark.parametrize("kind", ["eager", "graph"])
@pytest.mark.parametrize("can", [True, False])
def test_steps_are_reproducible_on_cuda_and_where_they_cannot_be_it_is_said(
    tmp_path: Path, monkeypatch, capsys, kind, can
):
    """PyTorch's own refusal, of an operation that has no reproducible form on the CPU either."""
    strict = []

    class OnCuda(step.Step):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            self._is_strict = True

    def objective(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        is_strict = not torch.is_deterministic_algorithms_warn_only_enabled()
        strict.append(is_strict and torch.are_deterministic_algorithms_enabled())
        if not can:
            torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
        output = model(batch.latents, batch.timesteps, batch.conditioning["text"]).sample
        return {"loss": output.square().mean()}

    plain = [one.clone() for one in train(tmp_path / "plain", objective=objective)[0].parameters()]
    assert not any(strict)
    strict.clear()
    monkeypatch.setattr(loop, "Step", OnCuda)
    pretend_cuda(monkeypatch, step, FakeGraphs())
    found, _ = train(tmp_path / "found", objective=objective, runtime=kind)
    assert not torch.are_deterministic_algorithms_enabled()
    assert strict[0]
    assert any(strict[1:]) == can
    for one, other in zip(plain, found.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    lines = [line for line in capsys.readouterr().err.splitlines() if "may differ" in line]
    assert len(lines) == (not can)
    assert can or "put_" in lines[0]


@pytest.mark.parametrize("fails", [False, True])
def test_a_compiled_step_trains_and_one_that_is_not_to_be_had_is_said(
    tmp_path: Path, monkeypatch, capsys, fails
):
    from torch._dynamo.exc import TorchDynamoException

    calls = []

    def compiled(run):
        def once(parts):
            calls.append(len(parts))
            if fails:
                raise TorchDynamoException("no such operator\nmore")
            return run(parts)

        return once

    monkeypatch.setattr(step, "usable", lambda kind, device: kind)
    monkeypatch.setattr(compiled_blocks, "with_compiled_blocks", compiled)
    eager, _ = train(tmp_path / "eager", steps=5)
    found, _ = train(tmp_path / "compile", steps=5, runtime="compile")
    assert torch.equal(_weights(eager), _weights(found))
    assert calls == [1] * (1 if fails else 5)
    lines = [line for line in capsys.readouterr().err.splitlines() if "runtime" in line]
    assert (
        lines
        == ["runtime compile: the model can't be compiled (no such operator); running eagerly"]
        * fails
    )


def test_a_step_that_cuda_cannot_compile_is_recorded(tmp_path: Path, monkeypatch, capsys):
    def refuse(run):
        def once(parts):
            raise CompileError("no such operator")

        return once

    eager, _ = train(tmp_path / "eager", steps=6)
    graphs = FakeGraphs()
    pretend_cuda(monkeypatch, step, graphs)
    monkeypatch.setattr(compiled_blocks, "with_compiled_blocks", refuse)
    fallen, _ = train(tmp_path / "compile", steps=6, runtime="compile")
    assert (graphs.num_recorded, graphs.num_replayed) == (1, 6 - step.WARM_UP_STEPS)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "runtime" in line]
    assert line.endswith("the model can't be compiled (no such operator); running as graph")
    torch.testing.assert_close(_weights(fallen), _weights(eager), rtol=1e-5, atol=1e-7)
