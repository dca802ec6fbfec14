"""U-Net time per image: a student with its LoRA fused against the guided teacher, in one run.

    PYTHONPATH=src python benchmarks/guidance_inference.py --arch sd15 --latent 32
    PYTHONPATH=src python benchmarks/guidance_inference.py --arch scenes

`sd15`, `sd21`: the real shapes with random weights, which time does not depend on; `scenes`: the
shipped teacher. One denoising step each, interleaved and in changing order; every time of an image
is divided by the student's of the same round. Three ways to get a guided output:
student   one evaluation, LoRA merged into the weights
batched   the teacher, both halves of guidance in one evaluation of twice the batch
two_calls the teacher, one after the other
Prints the median seconds per image and step, and the ratio with a bootstrap interval over rounds.
On the CPU processor time is measured, so that other work on the machine counts little.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from timing import ratio_text, time_ways

from distillery.diffusion.guidance import guided
from distillery.models.architectures import ARCHITECTURES
from distillery.models.lora.layers import add_lora, fuse_lora

SCENES = Path("data/scenes-sd/unet")
TOKENS = 77


def load(arch: str, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """A U-Net in eval mode, of random weights for the public shapes."""
    if arch == "scenes":
        unet = UNet2DConditionModel.from_pretrained(SCENES, torch_dtype=dtype)
    else:
        unet = UNet2DConditionModel(**ARCHITECTURES[arch]["unet"])
    unet = unet if unet.dtype == dtype else unet.to(dtype)
    return unet.to(device).eval().requires_grad_(False)


def make_ways(
    unet: UNet2DConditionModel, batch_size: int, latent: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """The three ways on the same inputs; the student's weights are the teacher's with a LoRA."""
    config, options = unet.config, {"device": unet.device, "dtype": unet.dtype}
    x = torch.randn(batch_size, config.in_channels, latent, latent, **options)
    text, empty = torch.randn(2, batch_size, TOKENS, config.cross_attention_dim, **options)
    step, scales = torch.tensor(500, device=unet.device), torch.full((batch_size,), 7.5)
    scales = scales.to(unet.device)

    @torch.no_grad()
    def ask(inputs: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return unet(inputs, step, encoder_hidden_states=words).sample

    def batched() -> torch.Tensor:
        cond, uncond = ask(torch.cat([x, x]), torch.cat([text, empty])).chunk(2)
        return guided(cond, uncond, scales)

    return {
        "student": lambda: ask(x, text),
        "batched": batched,
        "two_calls": lambda: guided(ask(x, text), ask(x, empty), scales),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=["sd15", "sd21", "scenes"], default="sd15")
    parser.add_argument("--latent", type=int, help="side of the latents; default: the U-Net's own")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--num-threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    device = torch.device(args.device)
    unet = load(args.arch, device, getattr(torch, args.dtype))
    unet = fuse_lora(add_lora(unet, r=16, alpha=16, targets="all", seed=0))
    latent = args.latent or unet.config.sample_size
    print(f"{args.arch} {args.dtype} {args.device}, latents {latent} x {latent}")
    for batch_size in args.batch_sizes:
        seconds = time_ways(make_ways(unet, batch_size, latent), args.rounds, device)
        for name, values in seconds.items():
            each, ratio = np.median(values) / batch_size, ratio_text(values, seconds["student"])
            print(f"batch {batch_size:2}  {name:9} {each:9.5f} s/image  {ratio}")


if __name__ == "__main__":
    main()
