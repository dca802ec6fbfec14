"""What the training loop costs over a bare step of the same model, on the CPU.

A low-rank U-Net from cached outputs and ELR's control adapter on it, random weights at the shapes
of the scenes teacher, with the batch sizes of params.yaml. In one run, in an order drawn anew each
round:
bare    forward, backward, clipping, optimiser, on one batch that is there
ready   `train.loop.fit` with its default looks at the losses, on batches that are there
loop    the same, on batches read from arrays in half precision, with noise drawn for them
Processor time of all threads between the second and the last step; the median of ready / bare and
loop / bare with a 95% bootstrap interval over rounds. Checkpoints and validation are left out.

Usage: python benchmarks/loop_overhead.py [--rounds 7] [--steps 4] [--json FILE]
"""

import argparse
import dataclasses
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from invented import Cached, settings
from results import keep
from timing import ratio_interval

from distillery.cost.accounting import load_architecture
from distillery.cost.full_size.device import materialise
from distillery.cost.full_size.iteration import Iteration
from distillery.cost.full_size.training import ROWS
from distillery.diffusion.batch import Batch
from distillery.models.control_adapter.adapter import UNI_CONTROLNET_KINDS
from distillery.train import loop
from distillery.train.order import Shuffled
from distillery.train.settings import Settings

CPU = torch.device("cpu")
CASES = {"unet_low_rank_cached": (32, ()), "elr": (16, UNI_CONTROLNET_KINDS)}
SKIPPED_STEPS = 2  # Adam's state is made in the first


class Ready:
    """The same batch at every step."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.keys)

    def at(self, step: int, share: int, num_shares: int) -> Batch:
        return self.batch


class Clock:
    """Stands in for a progress bar: processor time after each step."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def __call__(self, total: int, **options: Any) -> "Clock":
        return self

    def __enter__(self) -> "Clock":
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_postfix(self, **_: Any) -> None: ...

    def update(self) -> None:
        self.moments.append(time.process_time())

    @property
    def step_s(self) -> float:
        moments = self.moments[SKIPPED_STEPS - 1 :]
        return (moments[-1] - moments[0]) / (len(moments) - 1)


def bare(made: Iteration, batch: Batch, chosen: Settings) -> float:
    """Seconds of a step."""
    trained, optimizer, clock = made.trained(), chosen.make_optimizer(made.model), Clock()
    prepare = getattr(made.objective, "prepare", None)
    batch = prepare(batch, 0, 1) if prepare else batch
    for _ in range(chosen.steps):
        sum(made.objective(made.model, batch).values()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.update()
    return clock.step_s


def looped(made: Iteration, batches: Any, chosen: Settings) -> float:
    """Seconds of a step of the product's loop."""
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop, "_save", return_value=None),
    ):
        place = loop.Place(CPU, Path(folder), clock)
        loop.fit(made.model, made.objective, batches, chosen, place, seed=0)
    return clock.step_s


def measure(name: str, rounds: int, steps: int) -> dict[str, Any]:
    batch_size, kinds = CASES[name]
    parts = load_architecture("scenes")
    made = ROWS[name].build(parts)
    made = dataclasses.replace(made, frozen={n: m for n, m in made.frozen.items() if n == "unet"})
    materialise([made.model, *made.frozen.values()], CPU)
    config, text = parts["unet"].config, parts["text_encoder"].config
    latent = (config.in_channels, config.sample_size, config.sample_size)
    samples = Cached(latent, (text.max_position_embeddings, config.cross_attention_dim), kinds)
    chosen, ready = (
        settings(steps + SKIPPED_STEPS, batch_size),
        samples.batch(np.arange(batch_size)),
    )
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(made, ready, chosen),
        "ready": lambda: looped(made, Ready(ready), chosen),
        "loop": lambda: looped(made, Shuffled(samples, batch_size, 0), chosen),
    }
    order, found = random.Random(0), {way: [] for way in ways}
    for _ in range(rounds):
        for way in order.sample(list(ways), len(ways)):
            found[way].append(ways[way]())
    seconds = {way: np.array(values) for way, values in found.items()}
    row = {"case": name, "batch_size": batch_size, "rounds": rounds, "steps": steps}
    row["ms"] = {way: round(1e3 * float(np.median(values)), 1) for way, values in seconds.items()}
    for way in ("ready", "loop"):
        row[f"{way}_over_bare"] = [
            round(x, 4) for x in ratio_interval(seconds[way], seconds["bare"])
        ]
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(name, asked.rounds, asked.steps) for name in CASES]
    keep({"rows": rows}, asked.json, ("diffusers", "torch"))


if __name__ == "__main__":
    main()
