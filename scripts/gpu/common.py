"""What the parts share: where results go, the device, random models, a clock.

In: what the command line says. Out: a `Place`, whose records are written after every figure.
"""

import contextlib
import datetime
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kept import read_kept
from torch import nn

from distillery.core.device import claim_device
from distillery.core.publishing import publish
from distillery.cost.accounting import load_architecture
from distillery.cost.full_size.device import materialise, release
from distillery.cost.profile import device_name
from distillery.cost.timing import seconds_of


@dataclass(frozen=True)
class Place:
    """`out` gets the results, `work` what may be thrown away; `dry` is tiny and on the CPU."""

    out: Path
    dry: bool
    photos: Path | None = None

    @property
    def work(self) -> Path:
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def device(self) -> torch.device:
        return claim_device("cpu" if self.dry else "cuda")

    @property
    def dtype(self) -> torch.dtype:
        """What models are evaluated in."""
        return torch.float32 if self.dry else torch.float16

    @property
    def precision(self) -> str:
        """What models are trained in."""
        return "fp32" if self.dry else "bf16"

    @property
    def preset(self) -> str:
        return "scenes" if self.dry else "sd15"

    def record(self, name: str) -> "Record":
        """`runtime/<date>-<name>-<device>.json`, today's or the one that was begun."""
        slug = device_name(self.device).lower().replace(" ", "-")
        ending = f"{name}-{slug}.json"
        begun = sorted(self.out.glob(f"runtime/*-{ending}"))
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        return Record(begun[-1] if begun else self.out / "runtime" / f"{today}-{ending}", self)

    def parts(self) -> dict[str, nn.Module]:
        """An architecture on meta."""
        return load_architecture(self.preset)

    def real(self, module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
        """The module with random weights on the device, frozen."""
        module = nn.Module.to(module.requires_grad_(False).eval(), dtype or self.dtype)
        materialise([module], self.device)
        return module


class Record:
    """Figures by name, on disk as soon as they are there."""

    def __init__(self, path: Path, place: Place) -> None:
        self.path, self.device = path, place.device
        self.values = read_kept(path) if path.is_file() else _circumstances(place)

    def has(self, name: str) -> bool:
        """Whether a row is there and did not fail."""
        return name in self.values["rows"] and "error" not in self.values["rows"][name]

    def measure(self, name: str, figure: Callable[..., Any], *arguments: Any) -> Any:
        """The figure of this name, measured if it is not there; an error is kept as its text."""
        rows = self.values["rows"]
        if not self.has(name):
            with contextlib.redirect_stderr(_Heard(sys.stderr)) as heard:
                try:
                    rows[name] = figure(*arguments)
                except Exception as error:
                    rows[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            if heard.fallbacks:
                rows[name]["ran_eagerly"] = heard.fallbacks
            release(self.device)
            # Else what is compiled for one row counts against the next: after 8 forms of one
            # function torch runs it eagerly (torch._dynamo.config.recompile_limit).
            if "torch._dynamo" in sys.modules:
                torch._dynamo.reset()
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
            self.write()
        return rows[name]

    def write(self) -> None:
        """Replace the file by what is known."""
        keep(self.path, self.values)


def keep(path: Path, values: Mapping[str, Any]) -> None:
    """JSON at `path`, in the order in which it was measured; a figure may be no number."""
    with publish(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n")


class _Heard:
    """Standard error, with the lines that say what is not to be had kept."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.fallbacks = stream, []

    def write(self, text: str) -> int:
        self.fallbacks += [line for line in text.splitlines() if line.startswith("runtime ")]
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _circumstances(place: Place) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(place.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "architecture": place.preset,
        "weights": "random",
        "rows": {},
    }


def seconds(job: Callable[[], object], device: torch.device, num: int) -> dict[str, float]:
    """Median of `num` timed calls with the least and the greatest; the caller warms up."""
    taken = [seconds_of(job, device) for _ in range(num)]
    return {
        "ms": 1e3 * statistics.median(taken), "ms_least": 1e3 * min(taken),
        "ms_most": 1e3 * max(taken), "n": num,
    }  # fmt: skip


def ratio(rows: Mapping[str, Any], one: str, other: str, key: str) -> float | None:
    """One row's figure over another's, None where either is missing."""
    if all(key in rows.get(name, {}) for name in (one, other)):
        return rows[one][key] / rows[other][key]
    return None
