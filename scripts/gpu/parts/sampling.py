"""A sampling step of every model in every runtime: the product's loop and the bare recorded step.

Milliseconds are of one denoising step of a batch, text encoding and decoding apart.
"""

from itertools import product
from typing import Any

import torch
from common import Place, ratio, seconds
from torch import nn

from distillery.core.runtime import KINDS, Kind, Runtime, captured, records
from distillery.cost.accounting import ALIGNED, low_rank_unet, teacher_controlnet
from distillery.cost.timing import seconds_of
from distillery.diffusion.conditioning import TEXT
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet
from distillery.sampling.ddim import Step, Told, ddim_scheduler, sample_latents
from distillery.sampling.runtime import in_runtime

# U-Net, ControlNet, whether guided.
MODELS: dict[str, tuple[str, str | None, bool]] = {
    "whole student": ("low_rank", "distilled", False),
    "teacher with ControlNet, guided": ("dense", "teacher", True),
    "guidance student": ("dense", None, False),
    "teacher, guided": ("dense", None, True),
    "ControlNet student, guided": ("dense", "distilled", True),
    "low-rank, guided": ("low_rank", None, True),
}
SCHEDULE = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1,
}  # fmt: skip


def run(place: Place) -> None:
    record = place.record("sampling")
    record.values["dtype"] = str(place.dtype).removeprefix("torch.")
    sizes, names = ((1,), list(MODELS)[:1]) if place.dry else ((8, 1), list(MODELS))
    networks = networks_of(place)
    # What is asked most comes first, and a compiler, which takes a minute there for one row, last.
    recorded = product(sizes, names, ("eager",) if place.dry else ("graph",))
    eager = [] if place.dry else product((1,), names, ("eager",))
    compiled = [] if place.dry else product(sizes, names, ("compile",))
    for batch, name, kind in (*recorded, *eager, *compiled):
        row = f"{name}/b{batch}/{kind}"
        record.measure(row, _model, place, networks, name, batch, kind)
        _summarise(record, sizes)


def _summarise(record: Any, sizes: tuple[int, ...]) -> None:
    rows, best = record.values["rows"], {}
    for name in MODELS:
        for batch in sizes:
            own = {k: rows.get(f"{name}/b{batch}/{k}", {}).get("ms") for k in KINDS}
            known = {kind: ms for kind, ms in own.items() if ms is not None}
            if known:
                kind = min(known, key=known.get)
                best[f"{name}/b{batch}"] = {"runtime": kind, "ms": known[kind]}
    record.values["best"] = best
    record.values["whole_student_faster_than_guided_teacher_with_controlnet"] = {
        f"b{b}": ratio(best, f"teacher with ControlNet, guided/b{b}", f"whole student/b{b}", "ms")
        for b in sizes
    }
    record.write()


def networks_of(place: Place) -> dict[str, nn.Module]:
    """Those of `MODELS` with random weights on the device."""
    parts = place.parts()
    teacher = teacher_controlnet(parts)
    made = {
        "low_rank": low_rank_unet(parts["unet"], ALIGNED),
        "dense": parts["unet"],
        "distilled": StudentControlNet.empty(teacher, PRESETS["distilled"]),
        "teacher": teacher,
    }
    return {name: place.real(module) for name, module in made.items()}


def _model(
    place: Place, networks: dict[str, nn.Module], name: str, batch: int, kind: Kind
) -> dict[str, Any]:
    step, told, noise = step_of(place, networks, name, batch)
    num_steps = 2 if place.dry else 10
    scheduler = ddim_scheduler(SCHEDULE, num_steps)
    run_step = in_runtime(step, Runtime(kind, "high"), batch * (1 + told.is_guided))

    def draw() -> None:
        sample_latents(step.unet, scheduler, noise, told, run_step)

    for _ in range(1 if place.dry else 2):
        draw()
    found = seconds(draw, place.device, 1 if place.dry else 5)
    figures = {"ms": found["ms"] / num_steps, "n": found["n"], "steps": num_steps}
    if kind == "graph" or place.dry:
        figures["bare_ms"] = _bare_ms(place, step, told, noise)
    return figures


def step_of(
    place: Place, networks: dict[str, nn.Module], name: str, batch: int
) -> tuple[Step, Told, torch.Tensor]:
    """A model's sampling step, what it is told, and noise."""
    unet_name, control, is_guided = MODELS[name]
    unet, net = networks[unet_name], networks[control] if control else None
    for network in (unet, net):
        if network is not None:
            network.to(memory_format=torch.contiguous_format)
    told, noise = _told(place, unet, net, batch, is_guided)
    return Step(unet, net, told.scale), told, noise


def _told(
    place: Place, unet: nn.Module, net: nn.Module | None, batch: int, is_guided: bool
) -> tuple[Told, torch.Tensor]:
    config, options = unet.config, {"device": place.device, "dtype": place.dtype}
    width, side = config.cross_attention_dim, config.sample_size
    text = {TEXT: torch.randn(batch, 77, width, **options)}
    empty = {TEXT: torch.randn(1, 77, width, **options)}
    hint = torch.rand(batch, 3, 8 * side, 8 * side, **options) if net is not None else None
    noise = torch.randn(batch, config.in_channels, side, side, **options)
    return Told(text, empty, 7.5 if is_guided else 1.0, net, hint), noise


@torch.no_grad()
def _bare_ms(place: Place, step: Step, told: Told, noise: torch.Tensor) -> float:
    """The step alone, recorded, on inputs that never change."""
    timestep, inputs = torch.full((), 500, device=place.device), told.inputs()

    def bare() -> torch.Tensor:
        return step(noise, timestep, inputs)

    job = captured(bare, "graph") if records("graph", place.device) else bare
    for _ in range(3):
        job()
    num_steps = 1 if place.dry else 20
    return 1e3 * seconds_of(job, place.device, num_steps) / num_steps
