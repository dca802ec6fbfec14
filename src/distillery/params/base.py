"""Types that the sections of params.yaml share.

One module a section, one frozen model a section; every field says what its value does. These
descriptions are the source of docs/params.md and of what an editor shows. No field has a default:
the defaults are the shipped params.yaml.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from distillery.data.conditions import KINDS

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PathName = Annotated[str, Field(pattern=r"^[\w./-]+$")]  # it stands in shell commands
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Kind = Literal[tuple(KINDS)]


class Frozen(BaseModel):
    """Immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Weighting(Frozen):
    """Loss weight over timesteps (Salimans & Ho 2022, Hang et al. 2023)."""

    kind: Literal["constant", "truncated_snr", "min_snr", "snr_plus_one", "p2"]
    """function of the signal-to-noise ratio"""
    gamma: Annotated[float, Field(gt=0)]
    """its parameter, where it has one"""


class Training(Frozen):
    """What all training stages share."""

    batch_size: Positive
    """samples per step"""
    weight_decay: Annotated[float, Field(ge=0)]
    """of AdamW"""
    warmup_steps: Count
    """steps of linear warm-up"""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """gradients are clipped to this norm"""
    ema_decay: Share
    """of the averaged weights; 0 keeps the last ones"""
    precision: Literal["no", "bf16", "fp16"]
    """mixed precision; no is float32"""
    gradient_checkpointing: bool
    """less memory, more time"""
    optimizer: Literal["adamw", "adamw8bit"]
    """adamw8bit needs bitsandbytes"""
    compile: bool
    """torch.compile"""
    checkpoint_every_steps: Positive
    """steps between resume points"""
    validate_every_steps: Positive
    """steps between validation losses"""
    num_val_samples: Positive
    """samples of the validation loss"""
