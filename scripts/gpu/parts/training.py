"""Training throughput: the product's loop, the bare loop of the same model, the reference way.

The loop reads batches as from the cache: half-precision arrays in memory become float32, noise is
drawn on the CPU. The reference way is diffusers': images, VAE, text encoder, teacher at every step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Place, Record, ratio, seconds
from invented import Cached, settings
from torch import nn

from distillery.core.device import strictly_reproducible
from distillery.core.runtime import Kind, captured, records, usable
from distillery.cost.accounting import ALIGNED, low_rank_unet
from distillery.cost.full_size.device import materialise
from distillery.cost.full_size.training import diffusion
from distillery.cost.timing import wait
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.denoise import denoise
from distillery.diffusion.objectives import DistillOutput, cached_output
from distillery.models.compiled_blocks import with_compiled_blocks
from distillery.train import loop
from distillery.train.loop import Place as TrainingPlace
from distillery.train.loop import fit
from distillery.train.order import Shuffled
from distillery.train.settings import Settings

MODELS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense": lambda unet: unet, "low_rank": lambda unet: low_rank_unet(unet, ALIGNED),
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    batch: int
    steps: int
    latent: tuple[int, int, int]
    text: tuple[int, int]
    images_px: int

    def settings(self, kind: str, precision: str) -> Settings:
        return settings(
            self.steps, self.batch, precision=precision, runtime=kind, matmul_precision="high"
        )


def run(place: Place) -> None:
    record, sizes = place.record("training"), sizes_of(place)
    record.values["batch_size"], record.values["precision"] = (sizes.batch, place.precision)
    names = ("low_rank",) if place.dry else tuple(MODELS)
    _runtimes(record, place, names, ("eager",) if place.dry else ("graph",), sizes)
    record.measure("dense/reference", _reference, place, sizes)
    if not place.dry:
        _runtimes(record, place, names, ("compile", "eager"), sizes)


def sizes_of(place: Place) -> Sizes:
    """Of a training's batches and of the models in it."""
    parts = place.parts()
    config, text = parts["unet"].config, parts["text_encoder"].config
    latent = (config.in_channels, config.sample_size, config.sample_size)
    tokens = (text.max_position_embeddings, config.cross_attention_dim)
    return Sizes(2 if place.dry else 16, 4 if place.dry else 24, latent, tokens, 8 * latent[1])


def _runtimes(
    record: Record, place: Place, names: Sequence[str], kinds: Sequence[Kind], sizes: Sizes
) -> None:
    """Loop and bare loop."""
    for kind, name in product(kinds, names):
        loop_row, bare_row = f"{name}/{kind}/loop", f"{name}/{kind}/bare"
        record.measure(loop_row, _loop, place, name, kind, sizes)
        record.measure(bare_row, _bare, place, name, kind, sizes)
        quotient = ratio(record.values["rows"], loop_row, bare_row, "images_per_s")
        record.values.setdefault("loop_over_bare", {})[f"{name}/{kind}"] = quotient
        record.write()


def random_model(place: Place, name: str) -> nn.Module:
    """Trainable, in float32, on the device."""
    model = MODELS[name](place.parts()["unet"]).float().requires_grad_(True).train()
    materialise([model], place.device)
    return model


class Clock:
    """Stands in for a progress bar: the moments at which the losses were looked at."""

    def __init__(self) -> None:
        self.step, self.moments = 0, {}

    def __call__(self, total: int, **options: Any) -> "Clock":
        return self

    def __enter__(self) -> "Clock":
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_postfix(self, **_: Any) -> None:
        self.moments[self.step + 1] = time.perf_counter()

    def update(self) -> None:
        self.step += 1


def _loop(place: Place, name: str, kind: str, sizes: Sizes) -> dict[str, Any]:
    """Images/s between the first and the last look at the losses."""
    clock, model = Clock(), random_model(place, name)
    lesson = DistillOutput(diffusion(), cached_output("cond"))
    where = TrainingPlace(place.device, place.work / "training", clock)
    # As in a training of 50,000 steps, which looks every hundredth time; and nothing is kept.
    with (
        mock.patch.object(loop, "MAX_LOGGED_STEPS", 3),
        mock.patch.object(loop, "_save", return_value=None),
    ):
        batches = Shuffled(Cached(sizes.latent, sizes.text), sizes.batch, 0)
        fit(model, lesson, batches, sizes.settings(kind, place.precision), where, seed=0)
    wait(place.device)
    first, *_, last = sorted(clock.moments)
    took = clock.moments[last] - clock.moments[first]
    return {"images_per_s": (last - first) * sizes.batch / took, "steps": last - first}


def _bare(place: Place, name: str, kind: str, sizes: Sizes) -> dict[str, Any]:
    figures, _ = bare_step(place, name, kind, sizes)
    return {"images_per_s": 1e3 * sizes.batch / figures["ms"], **figures}


def bare_step(
    place: Place, name: str, kind: str, sizes: Sizes, *, is_strict: bool = True
) -> tuple[dict[str, float], torch.Tensor]:
    """The same step on one batch that lies on the device: nothing is read, copied or logged.

    Seconds of a step, and the first weights of every layer afterwards, on the CPU.
    """
    torch.manual_seed(0)
    device, model = place.device, random_model(place, name)
    step, kind = training_step(place, model, sizes, is_strict), usable(kind, device)
    run = with_compiled_blocks(step) if kind == "compile" else step
    job = captured(run, kind, 3) if records(kind, device) else run
    for _ in range(1 if place.dry else 6):
        job()
    found = seconds(job, device, 2 if place.dry else 9)
    return found, torch.cat([p.detach().flatten()[:4096].cpu() for p in model.parameters()])


def training_step(
    place: Place, model: nn.Module, sizes: Sizes, is_strict: bool = True
) -> Callable[[], None]:
    """Forward, backward, clipping and AdamW, as the loop has them.

    `is_strict`: in kernels that give the same bits every time, which is the loop's way too.
    """
    device = place.device
    batch = Cached(sizes.latent, sizes.text).batch(np.arange(sizes.batch)).to(device)
    lesson = DistillOutput(diffusion(), cached_output("cond"))
    options = {"lr": torch.tensor(1e-5, device=device), "capturable": True}
    if device.type == "cpu":
        options = {"lr": 1e-5}
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, fused=True, weight_decay=0.01, **options)

    def step() -> None:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=not place.dry, cache_enabled=False
        ):
            loss = sum(lesson(model, batch).values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return strictly_reproducible()(step) if is_strict and device.type == "cuda" else step


def _reference(place: Place, sizes: Sizes) -> dict[str, Any]:
    """As a training script of diffusers: eager, everything computed from images and tokens."""
    device, parts = place.device, place.parts()
    narrow = torch.float32 if place.dry else torch.bfloat16
    vae, text = (place.real(parts[name], narrow) for name in ("vae", "text_encoder"))
    teacher, student = place.real(parts["unet"], narrow), random_model(place, "dense")
    images = torch.rand(sizes.batch, 3, sizes.images_px, sizes.images_px)
    tokens = torch.zeros(sizes.batch, sizes.text[0], dtype=torch.long)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)
    plan = diffusion()

    def step() -> None:
        with torch.no_grad():
            latents = vae.encode(images.to(device, narrow) * 2 - 1).latent_dist.sample()
            told = {TEXT: text(tokens.to(device))[0]}
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, 1000, (sizes.batch,), device=device)
            batch = Batch([""] * sizes.batch, latents, noise, timesteps, told)
            noisy = plan.noisy(batch).to(narrow)
            wanted = denoise(teacher, noisy, timesteps, told)
        with torch.autocast(device.type, torch.bfloat16, enabled=not place.dry):
            loss = plan.error(denoise(student, noisy.float(), timesteps, told), wanted, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # logged at every step, as such scripts do

    for _ in range(1 if place.dry else 3):
        step()
    found = seconds(step, device, 2 if place.dry else 7)
    return {"images_per_s": 1e3 * sizes.batch / found["ms"], **found}
