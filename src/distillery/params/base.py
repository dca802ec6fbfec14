"""Types that the sections of params.yaml share.

One module a section, one frozen model a section; every field says what its value does. These
descriptions are the source of docs/params.md and of what an editor shows. No field has a default:
the defaults are the shipped params.yaml.
"""

import functools
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from distillery.core.precision import of_other_word
from distillery.data.conditions import KINDS

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
_PATH = r"^[\w./-]+$"
_NAME = r"^[a-z0-9][a-z0-9_]*$"
_UNET = r"^unet/[a-z0-9][a-z0-9_]*$"
_BACKBONE = r"^(teacher|unet/[a-z0-9][a-z0-9_]*)$"
_COLUMN = r"^[^./\\\x00- ]([^./\\\x00-\x1f]*[^./\\\x00- ])?$"  # in names of tar members
FORMS = {
    _PATH: "letters, digits and . / _ - only, as it stands in shell commands",
    _NAME: "small letters, digits and _ only",
    _UNET: "write unet/ and the name of a variant of distill_unet",
    _BACKBONE: "write teacher, or unet/ and the name of a variant of distill_unet",
    _COLUMN: "a column with a dot or a slash in its name, or a blank at its end, can't be taken; "
    "rename it",
}
PathName = Annotated[str, Field(pattern=_PATH)]
Name = Annotated[str, Field(pattern=_NAME)]
Unet = Annotated[str, Field(pattern=_UNET)]
Backbone = Annotated[str, Field(pattern=_BACKBONE)]
Column = Annotated[str, Field(pattern=_COLUMN)]
Kind = Literal[tuple(KINDS)]

_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_MAX_EXPONENT = 308  # of a float; an int of more digits takes minutes to write


def _named(value: Any) -> Any:
    return of_other_word(value) or value


Precision = Annotated[Literal["fp32", "bf16", "fp16"], BeforeValidator(_named)]
CachePrecision = Annotated[Literal["fp32", "fp16"], BeforeValidator(_named)]


class Frozen(BaseModel):
    """Immutable, strict about types, closed to unknown keys; a number may be written as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """`2e-3` is text to YAML 1.1 and a number to YAML 1.2; here it is a number."""
        if not _takes_numbers(cls, info.field_name):
            return value
        return (
            [read_number(item) for item in value] if isinstance(value, list) else read_number(value)
        )


@functools.cache
def _takes_numbers(model: type[BaseModel], name: str) -> bool:
    """Whether a field takes numbers and no text."""
    leaves = set(_leaves(model.model_fields[name].annotation))
    return bool(leaves & {int, float}) and not leaves & {str, bool}


def _leaves(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [annotation]


def read_number(value: Any) -> Any:
    """The number in a text, an int where it is whole; anything else unchanged."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return value
    number = Decimal(value)
    if number.adjusted() > _MAX_EXPONENT:
        return value
    return int(number) if number == number.to_integral_value() else float(number)


class Weighting(Frozen):
    """How the loss is weighted over timesteps (Salimans & Ho 2022, Hang et al. 2023)."""

    kind: Literal["constant", "truncated_snr", "min_snr", "snr_plus_one", "p2"]
    """Function of the signal-to-noise ratio that each timestep's loss is multiplied by."""
    gamma: AboveZero
    """Parameter of that function: the cap of min_snr, the exponent of p2; others ignore it."""


class Computation(Frozen):
    """How the device runs a computation that it repeats; calls differ in the last bits only."""

    runtime: Literal["eager", "compile", "graph"]
    """How steps run: eager (op by op), graph (recorded once, replayed; CUDA), or compile."""
    matmul_precision: Literal["highest", "high"]
    """Precision of float32 products on CUDA; high rounds their operands to TF32, and is quicker."""
    memory_format: Literal["auto", "contiguous", "channels_last"]
    """Layout of the weights of convolutions in memory; auto takes what was measured quicker."""


class Training(Computation):
    """How a family's students are trained; all families share these settings."""

    batch_size: Positive
    """Samples in one optimiser step, over all processes and accumulated parts together."""
    accumulate_steps: Positive
    """Parts that a step's batch is divided into, whose gradients add up: less memory, same step."""
    weight_decay: Factor
    """Weight decay of AdamW, applied to every trained parameter."""
    warmup_steps: Count
    """Steps over which the learning rate rises linearly from zero."""
    max_grad_norm: AboveZero
    """Gradients are scaled down to this norm when theirs is larger."""
    ema_decay: Share
    """Decay of the running average of weights that is saved; 0 saves the last weights instead."""
    precision: Precision
    """Number format of the computation: fp32, or mixed precision with bf16 or fp16."""
    weights: Literal["fp32", "bf16"]
    """Number format of trained weights; bf16 is rounded at random, and needs precision bf16."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""
    optimizer: Literal["adamw", "adamw8bit"]
    """AdamW, or its form with 8-bit state, which needs CUDA and bitsandbytes."""
    checkpoint_every_steps: Positive
    """Steps between the states that a killed training resumes from; a signal keeps every step."""
    validate_every_steps: Positive
    """Steps between computations of the validation loss and of the preview images."""
    num_val_samples: Positive
    """Validation records whose loss is averaged, always the same ones."""

    @model_validator(mode="after")
    def _check_parts(self) -> "Training":
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"accumulate_steps: {self.accumulate_steps} equal parts do not make a batch_size "
                f"of {self.batch_size}; use one of its divisors"
            )
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> "Training":
        if self.weights == "fp32":
            return self
        if self.precision != "bf16":
            raise ValueError(
                f"weights: bf16 can't be computed with in {self.precision}; set precision: bf16"
            )
        if self.optimizer != "adamw":
            raise ValueError(
                f"weights: {self.optimizer} rounds bf16 to the nearest, and small steps are lost; "
                "set optimizer: adamw"
            )
        if self.ema_decay:
            raise ValueError(
                "weights: an average moves by less than bf16's spacing; set ema_decay: 0"
            )
        return self
