"""Making a latency table of one architecture: measured here, or predicted from three constants.

In: the parts of a U-Net, a clock or a machine. Out: a `LatencyTable`. Not here: files.
"""

import datetime
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch

from distillery.core.errors import DistilleryError
from distillery.core.precision import NAMES
from distillery.cost.latency.measure import Clock, Forms, clock_of, time_units
from distillery.cost.latency.roofline import MACHINES, Machine, roofline_s
from distillery.cost.latency.table import BASES, DENSE, LatencyTable, Spread
from distillery.cost.latency.units import Anatomy, Tensors, rank_grid
from distillery.cost.profile import device_name

_PACKAGES = ("torch", "diffusers")
MEASURED, PREDICTED = BASES


def alignment(device: str, dtype: str) -> int:
    """Ranks in a table are multiples of this: 64 for half-precision kernels of a GPU, else 8."""
    return 64 if device != "cpu" and dtype in ("float16", "bfloat16") else 8


def forms_of(parts: Anatomy, multiple_of: int) -> dict[tuple[str, str, str], Any]:
    """{(group, key, form): (unit, rank)} of all that a table holds; equal keys appear once."""
    forms: dict[tuple[str, str, str], Any] = {
        ("models", parts.model.key, DENSE): (parts.model, None)
    }
    for unit in parts.blocks.values():
        forms.setdefault(("blocks", unit.key, DENSE), (unit, None))
    for name, unit in parts.layers.items():
        for rank in (None, *rank_grid(parts.shapes[name], multiple_of)):
            form = DENSE if rank is None else str(rank)
            forms.setdefault(("layers", unit.key, form), (unit, rank))
    return forms


def measure_table(
    parts: Anatomy,
    clock: Clock,
    *,
    name: str,
    multiple_of: int,
    on_round: Callable[[int], object] = lambda n: None,
) -> LatencyTable:
    """Time every form on this machine; one to two minutes for Stable Diffusion."""
    forms: Forms = forms_of(parts, multiple_of)
    num_weights = sum(p.numel() for p in parts.model.module.parameters())
    seconds = time_units(forms, clock, num_weights, on_round)
    facts = {
        "device": device_name(clock.device), "dtype": str(clock.dtype).removeprefix("torch."),
        "batch_size": clock.batch_size, "side": parts.model.inputs[0][-1], "runtime": clock.runtime,
        "channels_last": clock.channels_last, "num_threads": torch.get_num_threads(),
        "clock": clock_of(clock.device), "num_rounds": clock.num_rounds,
        "date": datetime.date.today().isoformat(),
        "versions": {package: version(package) for package in _PACKAGES},
    }  # fmt: skip
    return LatencyTable(name, MEASURED, multiple_of, **grouped(seconds), facts=facts)


def predict_table(
    parts: Anatomy, machine: Machine, *, name: str, multiple_of: int, dtype: str, batch_size: int
) -> LatencyTable:
    """The roofline's table: seconds for Stable Diffusion."""
    tensors = Tensors(batch_size, torch.device("meta"), getattr(torch, dtype))
    seconds = {
        place: {"median_s": float(f"{roofline_s(unit, rank, tensors, machine):.6g}")}
        for place, (unit, rank) in forms_of(parts, multiple_of).items()
    }
    facts = {"dtype": dtype, "batch_size": batch_size, "constants": vars(machine)}
    return LatencyTable(name, PREDICTED, multiple_of, **grouped(seconds), facts=facts)


def predicted_by_name(parts: Anatomy, name: str, searched: object = "here") -> LatencyTable:
    """The prediction for a device whose constants are stated, from a table's name.

    `searched` is where there was no table of that name, for the message.

    Raises DistilleryError for a name that is none, or a device that is not in `MACHINES`.
    """
    device, dtype, batch_size = split_name(name)
    if device not in MACHINES:
        raise DistilleryError(
            f"device {name}: no table of that name in {searched}, and nothing is known to predict "
            f"it; run `distillery latency`, or choose one of {', '.join(MACHINES)} for a prediction"
        )
    return predict_table(
        parts, MACHINES[device], name=name, multiple_of=alignment(device, dtype), dtype=dtype,
        batch_size=batch_size,
    )  # fmt: skip


def split_name(name: str) -> tuple[str, str, int]:
    """(device, dtype as torch says it, batch size) of a table's name, `h100-fp16-b8`."""
    device, _, rest = name.rpartition("-b")
    device, _, dtype = device.rpartition("-")
    if not device or dtype not in NAMES or not rest.isdigit() or int(rest) < 1:
        raise DistilleryError(
            f"device {name!r}: a table is named <device>-<dtype>-b<batch>, such as h100-fp16-b8"
        )
    return device, NAMES[dtype], int(rest)


def grouped(seconds: Mapping[tuple[str, str, str], Spread]) -> dict[str, dict]:
    """`layers`, `blocks` and `models` of a table, from seconds by the names of `forms_of`."""
    groups: dict[str, dict] = {"layers": {}, "blocks": {}, "models": {}}
    for (group, key, form), value in seconds.items():
        if group == "layers":
            groups[group].setdefault(key, {})[form] = dict(value)
        else:
            groups[group][key] = dict(value)
    return groups


def device_slug(device: torch.device) -> str:
    """`cpu`, or what a GPU's name says of its kind: `h100` of `NVIDIA H100 80GB HBM3`."""
    if device.type != "cuda":
        return device.type
    words = torch.cuda.get_device_name(device).replace("-", " ").lower().split()
    kinds = [w for w in words if any(c.isdigit() for c in w) and not w.endswith("gb")]
    return kinds[0] if kinds else words[-1]
