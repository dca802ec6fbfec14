"""Forward + backward of one layer with a Kronecker adapter, against PEFT's methods.

At the shapes of SD 2.1: Linear layers of 320, 640 and 1280 features at 4096, 1024 and 256 tokens,
and 3 x 3 convolutions of as many channels on 64, 32 and 16 px wide maps, batch 1. Peers, all over
a frozen layer and with a gradient for the input: LoKr and LoHa of the same rank, LoRA with the same
number of parameters; and dense fine-tuning, the layer itself being trained.

Repeats are interleaved, one of each method in turn, and a ratio is taken within each repeat: the
table has the median of peer / Kronecker with a 95% bootstrap interval; above 1 Kronecker is faster.
Times are processor time on the CPU, so that other work on the machine counts little, and elapsed
time between synchronisations elsewhere.

Usage: python benchmarks/kronecker.py [--quick] [--threads 1] [--device cpu] [--json FILE]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from results import keep
from timing import ratio_interval, seconds_of_one
from torch import Tensor, nn

from distillery.models.kronecker import KroneckerConfig

RANK = 8
LINEAR = [(320, 4096), (640, 1024), (1280, 256)]
CONV = [(320, 64), (640, 32), (1280, 16)]


def adapters() -> dict[str, object]:
    target = {"r": RANK, "target_modules": ["0"]}
    return {
        "kronecker": KroneckerConfig(n=4, **target),
        "lokr": LoKrConfig(**target),
        "loha": LoHaConfig(**target),
        "lora": LoraConfig(**target),
    }


def linear_case(features: int, tokens: int) -> tuple[Callable[[], nn.Module], Tensor]:
    return lambda: nn.Linear(features, features), torch.randn(1, tokens, features)


def conv_case(channels: int, width_px: int) -> tuple[Callable[[], nn.Module], Tensor]:
    x = torch.randn(1, channels, width_px, width_px)
    return lambda: nn.Conv2d(channels, channels, 3, padding=1), x


def models(layer: Callable[[], nn.Module], device: str) -> dict[str, nn.Module]:
    made = {name: get_peft_model(nn.Sequential(layer()), c) for name, c in adapters().items()}
    made["dense"] = nn.Sequential(layer())
    return {name: model.to(device) for name, model in made.items()}


def num_trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def step_s(model: nn.Module, x: Tensor) -> float:
    """Seconds of one forward and backward pass; gradients are dropped afterwards, untimed."""
    duration_s = seconds_of_one(lambda: model(x).backward(x), x.device)
    model.zero_grad(set_to_none=True)
    x.grad = None
    return duration_s


def measure(made: dict[str, nn.Module], x: Tensor, repeats: int) -> dict[str, np.ndarray]:
    """Seconds per repeat and method, after one untimed round."""
    x = x.requires_grad_()
    rounds = [{name: step_s(model, x) for name, model in made.items()} for _ in range(repeats + 1)]
    return {name: np.array([times[name] for times in rounds[1:]]) for name in made}


def run(name: str, case: tuple, repeats: int, device: str) -> dict:
    layer, x = case
    made = models(layer, device)
    times = measure(made, x.to(device), repeats)
    row = {"shape": name, "ms": {k: float(np.median(t)) * 1e3 for k, t in times.items()}}
    row["parameters"] = {k: num_trainable(model) for k, model in made.items()}
    own = times.pop("kronecker")
    row["ratio"] = {k: ratio_interval(taken, own) for k, taken in times.items()}
    cells = [f"{k} {m:.2f} [{low:.2f}, {high:.2f}]" for k, (m, low, high) in row["ratio"].items()]
    print(f"{name:>18} {row['ms']['kronecker']:8.1f} ms   {'   '.join(cells)}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    repeats = 5 if arguments.quick else 25
    print(f"{'':>18} {'kronecker':>11}   peer / kronecker (95% interval), {repeats} repeats")
    rows = [
        run(f"linear {size[0]} x {size[1]}", linear_case(*size), 3 * repeats, arguments.device)
        for size in LINEAR
    ]
    rows += [
        run(f"conv {size[0]} @ {size[1]} px", conv_case(*size), repeats, arguments.device)
        for size in CONV
    ]
    keep({"rows": rows}, arguments.json, ("peft", "torch"))


if __name__ == "__main__":
    main()
