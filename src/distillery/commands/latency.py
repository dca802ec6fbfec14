"""`distillery latency`: what every layer of an architecture costs on a device, in each form.

In: an architecture, a device, batch sizes. Out: latency tables for `distillery ranks`, as text or
JSON. Weights are random; nothing is downloaded. A device that is not here is predicted from stated
constants, and the table says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from distillery.commands.params import architecture_of, is_params_file, teacher_folder
from distillery.core.errors import DistilleryError
from distillery.core.precision import NAMES, read_precision
from distillery.core.progress import bar
from distillery.cost.accounting import load_architecture
from distillery.cost.latency import make
from distillery.cost.latency.measure import Clock
from distillery.cost.latency.roofline import MACHINES, Machine, measure_machine
from distillery.cost.latency.table import LatencyTable, plan_s
from distillery.cost.latency.units import Anatomy, anatomy
from distillery.families.unet.latency_plan import as_planned
from distillery.models.control_adapter.hints import VAE_SCALE
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.removed import layers_kept


def measure(
    preset: str,
    *,
    device: str,
    dtype: str = "fp32",
    batch_sizes: Sequence[int] = (1,),
    resolution_px: int | None = None,
    runtime: str | None = None,
    channels_last: bool = False,
    num_rounds: int = 9,
    multiple_of: int | None = None,
    name: str | None = None,
    predict: bool = False,
) -> list[LatencyTable]:
    """One table for each batch size: timed on `cpu` or `cuda`, predicted for any other device.

    `predict` also predicts for `cpu` and `cuda`, from three constants that are measured here.
    `name` stands for the device in the tables' names. Raises DistilleryError for what is not here,
    and for a way of timing where nothing is timed.
    """
    dtype = read_precision(dtype, "--dtype")
    long = NAMES[dtype]
    parts = architecture_parts(preset, resolution_px)
    slug, machine = _place(device, getattr(torch, long), predict)
    multiple_of = multiple_of or make.alignment(slug, long)
    named = [(size, f"{name or slug}-{dtype}-b{size}") for size in batch_sizes]
    if machine is not None:
        _refuse_timing(device, runtime, channels_last=channels_last)
        return [
            make.predict_table(
                parts, machine, name=full, multiple_of=multiple_of, dtype=long, batch_size=size
            )
            for size, full in named
        ]
    runtime = runtime or ("graph" if device == "cuda" else "eager")
    clock = Clock(torch.device(device), getattr(torch, long), 1, runtime, channels_last, num_rounds)
    clock.check()
    with bar(num_rounds * len(named), "latency", unit="round") as progress:
        return [
            make.measure_table(
                parts, replace(clock, batch_size=size), name=full, multiple_of=multiple_of,
                on_round=lambda index: progress.update(1),
            )
            for size, full in named
        ]  # fmt: skip


def _place(device: str, dtype: torch.dtype, predict: bool) -> tuple[str, Machine | None]:
    """The device in a table's name, and its constants if it is to be predicted."""
    if device in MACHINES:
        return device, MACHINES[device]
    if device not in ("cpu", "cuda"):
        known = ", ".join(["cpu", "cuda", *MACHINES])
        raise DistilleryError(f"--device {device}: nothing is known of it; use one of {known}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DistilleryError(
            "--device cuda: no CUDA device here; use --device cpu, or a device that is predicted: "
            + ", ".join(MACHINES)
        )
    place = torch.device(device)
    return make.device_slug(place), measure_machine(place, dtype) if predict else None


def _refuse_timing(device: str, runtime: str | None, *, channels_last: bool) -> None:
    """DistilleryError for options that a prediction can't follow."""
    if channels_last:
        option, why = "--channels-last", "its constants hold for no memory format"
    elif device in MACHINES and runtime not in (None, "graph"):
        option, why = f"--runtime {runtime}", "as a CUDA graph"
    elif device not in MACHINES and runtime is not None:
        option, why = f"--runtime {runtime}", "by constants that are measured here, in no runtime"
    else:
        return
    raise DistilleryError(f"{option}: {device} is predicted, {why}; leave the option out")


def load_parts(preset: str, teacher: Path | None = None) -> dict[str, nn.Module]:
    """U-Net, text encoder and VAE on meta of `sd15`, `sd21`, `scenes`, a params file, a folder."""
    if teacher is not None:
        return load_architecture(str(teacher))
    if not is_params_file(preset):
        return load_architecture(preset)
    from distillery.params.presets import load_preset

    params = load_preset(Path(preset))
    return load_architecture(str(teacher_folder(params) or architecture_of(params)))


def architecture_parts(preset: str, resolution_px: int | None = None) -> Anatomy:
    """Layers and blocks of a preset's U-Net at a resolution; its own if None."""
    return parts_of(load_parts(preset), resolution_px)


def parts_of(models: Mapping[str, nn.Module], resolution_px: int | None = None) -> Anatomy:
    """The same for models that are loaded already. Raises DistilleryError for sizes that clash."""
    unet = models["unet"]
    factor = 2 ** (len(unet.config.block_out_channels) - 1)
    px = resolution_px or unet.config.sample_size * VAE_SCALE
    if px % (VAE_SCALE * factor):
        raise DistilleryError(
            f"--resolution {px}: this U-Net halves its input {factor.bit_length() - 1} times; "
            f"use a multiple of {VAE_SCALE * factor}"
        )
    tokens = models["text_encoder"].config.max_position_embeddings
    return anatomy(unet, side=px // VAE_SCALE, num_tokens=tokens)


def as_text(tables: Sequence[LatencyTable], parts: Anatomy) -> str:
    """For each table what the dense model takes and on what, and what plain rules would give."""
    return "\n\n".join(_text(table, parts) for table in tables)


def _text(table: LatencyTable, parts: Anatomy) -> str:
    return "\n".join(
        f"{key:<34}{value}" for key, value in {
            "table": f"{table.name}, {table.basis}", **_times(table, parts),
        }.items()
    )  # fmt: skip


def _times(table: LatencyTable, parts: Anatomy) -> dict[str, str]:
    table = as_planned(table, parts)  # parts timed alone may take longer than the model
    dense = table.model_s(parts.model.key)
    layers = sum(table.layer_s(unit.key) for unit in parts.layers.values())
    third = plan_ranks(parts.shapes)
    blocks = list(parts.blocks)
    bare = layers_kept(third, blocks)
    return {
        "distinct layers, blocks": f"{len(table.layers)}, {len(table.blocks)}",
        "ranks are multiples of": str(table.multiple_of),
        "dense": f"{dense * 1e3:.3f} ms",
        "of it Linear and Conv2d": f"{layers * 1e3:.3f} ms",
        "a third of every rank": _share(plan_s(table, parts, third), dense),
        "every block removed as well": _share(plan_s(table, parts, bare, blocks), dense),
    }


def _share(seconds: float, dense: float) -> str:
    return f"{seconds * 1e3:.3f} ms, {seconds / dense:.3f} of dense"
