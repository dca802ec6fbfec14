"""Size, multiplications and latency of student ControlNets against their teacher at SD 2.1's size.

In: architectures with random weights. Out: a table; parameters and MACs are counted on the meta
device for 64 x 64 latents (512 px), latency is measured in turn with the teacher at
`--latent` (medians of `--repeats`, after one unmeasured round; processor time on the CPU).
`loha_dense` is `loha` with its Hadamard products multiplied out once.

Usage: python benchmarks/hadamard.py [--latent 32] [--repeats 3] [--batch 1] [--threads 1]
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from diffusers import ControlNetModel
from timing import seconds_of_one
from torch import Tensor, nn

from distillery.cost.counts import count_macs, count_parameters
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet
from distillery.models.student_controlnet.presets import meta_controlnet

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
Timed = tuple[float, float]


def inputs(batch: int, latent: int, device: str, dtype: torch.dtype) -> Inputs:
    """Latent, timestep, text and condition."""
    make = torch.empty if device == "meta" else torch.randn
    shapes = [(batch, 4, latent, latent), (batch, 77, 1024), (batch, 3, 8 * latent, 8 * latent)]
    sample, text, condition = (make(s, device=device, dtype=dtype) for s in shapes)
    return sample, torch.full((batch,), 500, device=device), text, condition


def random_values(model: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """A meta model with small random weights; latency does not depend on them."""
    model = nn.Module.to(nn.Module.to_empty(model, device=device), dtype)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02)
    return model.eval()


@torch.no_grad()
def seconds(model: nn.Module, arguments: Inputs) -> float:
    """One evaluation."""
    return seconds_of_one(lambda: model(*arguments, return_dict=False), arguments[0].device)


def paired(teacher: nn.Module, model: nn.Module, arguments: Inputs, repeats: int) -> Timed:
    """Medians of the model's seconds and of teacher / model, timed in turn."""
    rounds = [(seconds(teacher, arguments), seconds(model, arguments)) for _ in range(repeats + 1)]
    taken = statistics.median(own for _, own in rounds[1:])
    return taken, statistics.median(theirs / own for theirs, own in rounds[1:])


def num_parameters(model: nn.Module) -> int:
    return count_parameters({"controlnet": model})["total"]


def architectures() -> dict[str, Callable[[], ControlNetModel]]:
    """What makes each student on the meta device."""
    teacher = meta_controlnet("sd21")
    named = {
        name: lambda s=settings: StudentControlNet.empty(teacher, s)
        for name, settings in PRESETS.items()
        if name != "original"
    }
    dense = {**PRESETS["loha"], "hadamard_rank": None}
    return {
        **named,
        "loha_dense": lambda: StudentControlNet.empty(teacher, dense),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype, full = getattr(torch, options.dtype), inputs(1, 64, "meta", torch.float32)
    arguments = inputs(options.batch, options.latent, options.device, dtype)
    teacher = meta_controlnet("sd21")
    size, macs = num_parameters(teacher), count_macs(teacher, *full)
    teacher = random_values(teacher, options.device, dtype)
    print(f"{'':>16} {'parameters':>12} {'smaller':>8} {'MACs':>9} {'fewer':>7}   time  faster")
    print(f"{'teacher':>16} {size:>12,} {1:>7.2f}x {macs / 1e9:>7.2f} G")
    for name, make in architectures().items():
        model = make()
        own_size, own_macs = num_parameters(model), count_macs(model, *full)
        model = random_values(model, options.device, dtype)
        taken_s, ratio = paired(teacher, model, arguments, options.repeats)
        print(
            f"{name:>16} {own_size:>12,} {size / own_size:>7.2f}x {own_macs / 1e9:>7.2f} G"
            f" {macs / own_macs:>6.2f}x {taken_s:>5.2f} s {ratio:>5.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
