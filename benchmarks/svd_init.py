"""Time of one layer's factorisation against `torch.linalg.svd`, at the shapes of SD 2.1.

Prints, for each shape, seconds for both (best of three; processor time on the CPU, so that other
work on the machine counts little), their ratio, and how much further the product of our factors is
from the weight than the library's truncation; 0 is equal.

Usage: python benchmarks/svd_init.py [--threads 1] [--device cpu]
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from distillery.models.lowrank.decompose import decompose

SHAPES = [(320, 2880), (640, 640), (1280, 1280), (1280, 5120), (10240, 1280), (1280, 11520)]


def library_svd(weight: Tensor, rank: int) -> Tensor:
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


def our_svd(weight: Tensor, rank: int) -> Tensor:
    a, b = decompose(weight, rank)
    return a @ b


def best_of_three_s(
    function: Callable[[], Tensor], clock: Callable[[], float]
) -> tuple[float, Tensor]:
    times = []
    for _ in range(3):
        start = clock()
        result = function()
        if result.is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    print(f"{'shape':>14} {'linalg.svd':>12} {'decompose':>10} {'ratio':>6} {'excess error':>13}")
    for shape in SHAPES:
        weight = torch.randn(shape, device=arguments.device)
        rank = min(shape) // 3
        theirs_s, theirs = best_of_three_s(lambda w=weight, r=rank: library_svd(w, r), clock)
        ours_s, ours = best_of_three_s(lambda w=weight, r=rank: our_svd(w, r), clock)
        errors = [float((weight.double() - product).norm()) for product in (ours, theirs)]
        name = "x".join(map(str, shape))
        print(
            f"{name:>14} {theirs_s:>10.2f} s {ours_s:>8.2f} s {theirs_s / ours_s:>6.1f}"
            f" {errors[0] / errors[1] - 1:>13.1e}"
        )


if __name__ == "__main__":
    main()
