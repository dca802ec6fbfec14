"""How rows at full size are run: device, sizes, number format, runtimes; what is known already.

In: plain values. Out: a `Setup`, and `Predictions`, which keeps what was predicted of an
architecture: the same model, code and libraries give the same bytes. Not here: the rows.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers
from torch import nn

from distillery.core.artifacts import hash_json, read_json, write_json
from distillery.core.precision import torch_dtype
from distillery.core.runtime import Kind

SOURCE = Path(__file__).parents[2]


class Predictions:
    """Remembers values by what they depend on; in `folder` for later processes too."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Any] = {}

    def get(
        self, about: Mapping[str, Any], predict: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `predict` gives for `about`, JSON objects both; it is asked once."""
        key = hash_json({"about": about, "made_by": _made_by()})
        path = None if self._folder is None else self._folder / f"{key}.json"
        if key not in self._known and path is not None and path.is_file():
            self._known[key] = read_json(path, remedy="remove it")
        if key not in self._known:
            self._known[key] = predict()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, self._known[key])
        return self._known[key]


def usual_folder() -> Path:
    """Where predictions of this user are kept: `~/.cache/distillery`, or as XDG says."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "distillery" / "predictions"


@functools.cache
def _made_by() -> dict[str, str]:
    """All code of this package, and the libraries whose models and operators it runs."""
    code = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        code.update(path.read_bytes())
    libraries = (torch, diffusers, transformers, peft)
    return {"code": code.hexdigest(), **{m.__name__: str(m.__version__) for m in libraries}}


def architecture(parts: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The configurations of a pipeline's parts, as JSON values."""
    return {name: _plain(dict(part.config.to_dict() if hasattr(part.config, "to_dict")
                              else part.config)) for name, part in parts.items()}  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


@dataclass(frozen=True)
class Setup:
    """`batch_size` is that of training rows, `batch_sizes` are those of evaluations.

    `dtype` fp32, bf16, fp16: evaluations are in it, training mixes it with float32. `weights` are
    those that train, fp32 or bf16; with `checkpointing` training recomputes activations. All
    `runtimes` are timed; the quickest counts. `num_repeats` 0 predicts and runs nothing. `on_step`
    is told 1 after each timed call.
    """

    device: torch.device
    resolution_px: int
    batch_size: int = 1
    batch_sizes: tuple[int, ...] = (1, 8)
    num_repeats: int = 3
    dtype: str = "fp32"
    weights: str = "fp32"
    checkpointing: bool = False
    runtimes: tuple[Kind, ...] = ("eager",)
    predictions: Predictions = field(default_factory=Predictions)
    on_step: Callable[[int], object] = lambda count: None

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch_dtype(self.dtype)

    def about(self, row: str, parts: Mapping[str, nn.Module], **sizes: Any) -> dict[str, Any]:
        """What a prediction of a row depends on."""
        return {
            "row": row, "dtype": self.dtype, "weights": self.weights,
            "resolution_px": self.resolution_px, "architecture": architecture(parts), **sizes,
        }  # fmt: skip
