"""The loop: it learns, resumes exactly, also after SIGKILL, and stops on a loss not finite."""

import json
import multiprocessing
import random
import signal
import sys
import time
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.core.interrupts import Interrupted, as_errors
from distillery.diffusion.batch import Batch
from distillery.train.interrupted import interrupted
from distillery.train.state import TrainState
from toy import STEPS, ToySamples, train, train_to_file


class _KilledError(Exception):
    pass


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_training_lowers_the_validation_loss(tmp_path: Path) -> None:
    _, history = train(tmp_path)
    validations = [entry["loss"] for entry in history["val"]]
    assert [entry["step"] for entry in history["val"]] == [0, 10, 20, 30, 40]
    assert validations[-1] < validations[0]
    assert set(history["train"][0]) == {"step", "loss", "output", "diffusion"}


def test_two_runs_are_equal_bit_for_bit(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert first[1] == second[1]
    assert all(torch.equal(t, second[0].state_dict()[n]) for n, t in _weights(first[0]).items())


@pytest.mark.parametrize(
    "changed",
    # Fused Adam walks weights and moments in storage order: both need the same memory layout.
    [
        {"ema_decay": 0.0},
        {"ema_decay": 0.9},
        {"layout": torch.channels_last},
        {"accumulate_steps": 3},
    ],
)
def test_interrupted_at_any_step_equals_uninterrupted(tmp_path: Path, changed: dict) -> None:
    whole, history = train(tmp_path / "whole", **changed)

    class Interrupted(ToySamples):
        def batch(self, items):
            if len(self.seen) > 6 * 17:
                raise _KilledError
            return super().batch(items)

    with pytest.raises(_KilledError):
        train(tmp_path / "cut", Interrupted(), **changed)
    assert [p.name for p in tmp_path.glob("cut/step-*")] == ["step-00000014"]
    resumed, resumed_history = train(tmp_path / "cut", **changed)
    assert resumed_history == history
    assert all(torch.equal(t, whole.state_dict()[n]) for n, t in _weights(resumed).items())
    lines = [json.loads(line) for line in (tmp_path / "cut/log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["phase"] == "train"]
    assert steps == list(range(1, STEPS + 1))


class _Signalled(ToySamples):
    """A signal comes while the batch of step `number`, counted from here, is read."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.is_sent = number, False

    def batch(self, items):
        if len(self.seen) >= 6 * self.number and not self.is_sent:
            self.is_sent = True
            signal.raise_signal(signal.SIGTERM)
        return super().batch(items)


@pytest.mark.parametrize("changed", [{}, {"accumulate_steps": 3}, {"validate_every_steps": 1}])
def test_a_signal_keeps_every_step(tmp_path: Path, changed: dict) -> None:
    changed = {"checkpoint_every_steps": 1000, **changed}
    whole, history = train(tmp_path / "whole", **changed)
    steps = []
    for number in (17, 3, 9):
        with pytest.raises(Interrupted), as_errors():
            train(tmp_path / "cut", _Signalled(number), **changed)
        (checkpoint,) = tmp_path.glob("cut/step-*")
        steps.append(int(checkpoint.name.removeprefix("step-")))
    assert all(after > before for before, after in pairwise([0, *steps]))
    resumed, resumed_history = train(tmp_path / "cut", **changed)
    assert resumed_history == history
    assert all(torch.equal(t, whole.state_dict()[n]) for n, t in _weights(resumed).items())


@pytest.mark.parametrize("changed", [{"checkpoint_every_steps": 1}, {}])
def test_a_signal_with_nothing_to_save_ends_within_the_step(tmp_path: Path, changed: dict) -> None:
    calls = []

    def compiles(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(batch)
        if len(calls) == (3 if changed else 1):
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it went on")
        return {"loss": next(model.parameters()).sum()}

    with pytest.raises(Interrupted), as_errors():
        train(tmp_path, objective=compiles, validate_every_steps=1000, **changed)


def test_a_second_signal_ends_within_the_step(tmp_path: Path) -> None:
    calls = []

    def slow(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(batch)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it went on")
        return {"loss": next(model.parameters()).sum()}

    with pytest.raises(Interrupted), as_errors():
        train(tmp_path, objective=slow)
    assert not list(tmp_path.glob("step-*"))


def test_several_processes_speak_of_signals_only_where_the_host_waits_anyway() -> None:
    asked = []

    class Two:
        num_processes, device = 2, torch.device("cpu")

        def reduce(self, value: Tensor, how: str) -> Tensor:
            asked.append(how)
            return value

    def steps() -> None:
        state = TrainState(nn.Linear(1, 1), None, step=3)
        with as_errors(), interrupted(state, Two()) as ends:
            asked.append(ends(True))
            signal.raise_signal(signal.SIGTERM)
            asked.extend([ends(False), ends(True)])

    with pytest.raises(Interrupted):
        steps()
    assert asked == ["sum", False, "sum", False, True]


def test_a_signal_does_not_keep_what_is_no_number(tmp_path: Path) -> None:
    calls = []

    def broken(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(batch)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return {"bad": next(model.parameters()).sum() * (float("nan") if len(calls) == 3 else 1)}

    with pytest.raises(DistilleryError, match=r"bad is nan at step 3"), as_errors():
        train(tmp_path, objective=broken)
    assert not list(tmp_path.glob("step-*"))


def test_killed_several_times_equals_uninterrupted(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    out, folder = tmp_path / "final.safetensors", tmp_path / "work"
    context = multiprocessing.get_context("fork")  # nothing is imported anew
    draw = random.Random(5)
    for _ in range(4):
        process = context.Process(target=train_to_file, args=(folder, out, 0.02))
        process.start()
        _kill_after(process, folder, draw.randint(4, 12), out.with_suffix(".waits"))
    assert not out.exists()
    last = context.Process(target=train_to_file, args=(folder, out, 0.0))
    last.start()
    last.join()
    assert last.exitcode == 0
    final = load_file(out)
    assert all(torch.equal(t, final[n]) for n, t in _weights(whole).items())


def _kill_after(process: BaseProcess, folder: Path, num_lines: int, waits: Path) -> None:
    """SIGKILL once the log has grown by `num_lines` since the process opened it, or it waits."""
    log = folder / "log.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    wanted = None
    while process.is_alive() and not waits.exists():
        if log.exists() and log.stat().st_mtime_ns != before:
            lines = log.read_text().count("\n")
            wanted = wanted or lines + num_lines
            if lines >= wanted:
                break
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -9


def test_nothing_is_logged_of_an_empty_validation(tmp_path: Path) -> None:
    _, history = train(tmp_path, steps=2, validate=lambda model: {})
    assert "val" not in history
    assert len(history["train"]) == 2


def test_a_loss_that_is_no_number_names_step_and_term(tmp_path: Path) -> None:
    calls = []

    def broken(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(1)
        loss = next(model.parameters()).sum()
        return {"fine": loss, "bad": loss * (float("nan") if len(calls) == 3 else 1)}

    with pytest.raises(DistilleryError, match=r"loss term bad is nan at step 3"):
        train(tmp_path, objective=broken)


def test_every_item_is_seen_once_an_epoch(tmp_path: Path) -> None:
    samples = ToySamples()
    train(tmp_path, samples, steps=10)
    seen = samples.seen[4:]  # the first four are the validation batch
    assert sorted(seen[:20]) == list(range(20))
    assert sorted(seen[20:40]) == list(range(20))
    assert seen[:20] != seen[20:40]


def test_no_steps_validate_the_start_and_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, history = train(tmp_path, steps=0)
    assert list(history) == ["val"]
    assert [entry["step"] for entry in history["val"]] == [0]
    again, _ = train(tmp_path / "again", steps=0)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in _weights(model).items())


def test_bf16_trains(tmp_path: Path) -> None:
    _, history = train(tmp_path, precision="bf16")
    assert history["val"][-1]["loss"] < history["val"][0]["loss"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, steps=7)
    file = tmp_path / "step-00000007/model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DistilleryError, match="step-00000007"):
        train(tmp_path, steps=7)


def test_8_bit_adam_without_bitsandbytes_says_what_to_do(tmp_path: Path) -> None:
    if "bitsandbytes" in sys.modules:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(DistilleryError, match="pip install bitsandbytes"):
        train(tmp_path, optimizer="adamw8bit")
