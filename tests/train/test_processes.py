"""Two processes train as one does, on the same batches."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery.core.interrupts import Interrupted, as_errors
from toy import ToySamples, train
from two_processes import in_processes


def test_two_processes_equal_one(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        samples = ToySamples()
        model, _ = train(tmp_path / "two", samples, steps=8, dropout=0.0)
        save_file(model.state_dict(), tmp_path / f"rank-{rank}.safetensors")
        (tmp_path / f"seen-{rank}").write_text(" ".join(map(str, samples.seen[4:])))

    in_processes(2, tmp_path / "store", work)
    alone, _ = train(tmp_path / "one", steps=8, dropout=0.0)
    seen = [(tmp_path / f"seen-{rank}").read_text().split() for rank in (0, 1)]
    assert not set(seen[0][:3]) & set(seen[1][:3])
    for rank in (0, 1):
        together = load_file(tmp_path / f"rank-{rank}.safetensors")
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)])
def test_a_signal_ends_all_processes_at_one_step(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    whole, _ = train(tmp_path / "whole", steps=12, dropout=0.0)

    def work(rank: int, *, is_cut: bool) -> None:
        class Samples(ToySamples):
            def batch(self, items):
                if is_cut and rank in ranks and len(self.seen) == 4 + 3 * (4 + rank):
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().batch(items)

        changed = {"steps": 12, "dropout": 0.0, "checkpoint_every_steps": 1000}
        ends = pytest.raises(Interrupted) if is_cut else contextlib.nullcontext()
        with ends, as_errors():
            model, _ = train(tmp_path / "two", Samples(), **changed)
        if not is_cut:
            save_file(model.state_dict(), tmp_path / f"rank-{rank}.safetensors")

    in_processes(2, tmp_path / "store-1", lambda rank: work(rank, is_cut=True))
    (checkpoint,) = tmp_path.glob("two/step-*")
    assert 0 < int(checkpoint.name.removeprefix("step-")) < 12
    in_processes(2, tmp_path / "store-2", lambda rank: work(rank, is_cut=False))
    for rank in (0, 1):
        together = load_file(tmp_path / f"rank-{rank}.safetensors")
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5)


def test_processes_round_narrow_weights_alike(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        narrow = {"precision": "bf16", "weights": "bf16", "ema_decay": 0.0}
        model, _ = train(tmp_path / "two", steps=4, dropout=0.0, **narrow)
        save_file(model.state_dict(), tmp_path / f"rank-{rank}.safetensors")

    in_processes(2, tmp_path / "store", work)
    first, second = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["first.weight"], first["first.weight"].bfloat16().float())
