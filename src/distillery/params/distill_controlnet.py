"""The section distill_controlnet of params.yaml: small ControlNets.

Pairs that contradict each other are refused here, with the reason; what does not fit the teacher is
refused by the student's architecture.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import (
    AboveZero,
    Count,
    Factor,
    Frozen,
    Kind,
    Name,
    Positive,
    Training,
    Weighting,
)

Widths = Annotated[list[Positive], Field(min_length=1)]


class ControlnetLosses(Frozen):
    """What the three distances are multiplied by, and how the layerwise one is normalised."""

    lambda_diffusion: Factor
    """Factor of the U-Net's error against the data."""
    lambda_teacher: Factor
    """Factor of the U-Net's distance to the one under the teacher's control."""
    lambda_kd: Factor
    """Factor of the distance of residuals, a mean over the ControlNet's outputs."""
    stats: Literal["teacher", "own"]
    """Whose mean and spread normalise the student's residuals; own is blind to a wrong gain."""
    axes: Literal["sample", "layer_batch", "channel", "instance", "running"]
    """What shares a mean and spread: a sample, the batch, a channel, a sample's channel, steps."""


class Residuals(Frozen):
    """The teacher ControlNet's residuals; asking for them at every step is the usual way."""

    cache: bool
    """Compute the residuals once and keep them in the work folder."""
    budget_bytes: Positive
    """Refuse to start when the kept residuals would be larger."""


class StudentNet(Frozen):
    """A student's architecture; `models.student_controlnet.presets` has the named ones."""

    channels: Annotated[float, Field(gt=0, le=1)] | Widths
    """Widths of the levels: a share of the teacher's, or one number per level."""
    layers_per_block: Positive | None
    """Number of ResNets in a block; null takes the teacher's."""
    attention: Literal["teacher", "mid", "none"] | list[bool]
    """Where attention is kept: as in the teacher, in the middle, nowhere, or per level."""
    head_width: Positive | None
    """Channels per attention head; null takes the teacher's."""
    norm_num_groups: Positive | None
    """Groups of the group norms; null fits them to the widths."""
    output_map: dict[str, str] | None
    """Source of each output by name; null takes the same place as in the teacher."""
    modulation: Literal["none", "film", "static", "se"]
    """Modulation after each ResNet and transformer block, or none."""
    hadamard_rank: Positive | None
    """Rank of the Hadamard convolutions; null has none of them."""
    hadamard_convs: list[str]
    """Names of the convolutions that they replace, or the endings of such names."""


class ControlnetVariant(Frozen):
    """One student: a row of the table, or the user's own."""

    student: (
        Literal["original", "reduced_channel", "reduced_layer", "modulated", "loha", "distilled"]
        | StudentNet
    )
    """Architecture of the student, by name or by its settings."""
    init: Literal["teacher", "unet", "random"]
    """Where weights start: slices of the teacher ControlNet or the U-Net's encoder, or random."""
    terms: Annotated[list[Literal["diffusion", "teacher", "kd"]], Field(min_length=1)]
    """Distances that the student minimises; diffusion alone is training without distillation."""
    learning_rate: AboveZero
    """Learning rate after warm-up; it falls to zero by half a cosine."""
    steps: Count
    """Number of training steps; 0 evaluates the start."""

    @model_validator(mode="after")
    def _check(self) -> "ControlnetVariant":
        if len(set(self.terms)) != len(self.terms):
            raise ValueError(f"terms: {', '.join(self.terms)} names one twice")
        return self


class DistillControlnet(Frozen):
    """Small ControlNets that follow the teacher's."""

    condition: Kind
    """Kind of maps that the teacher ControlNet follows."""
    training: Training
    """How all students of this family are trained."""
    weighting: Weighting
    """How the two distances between the U-Net's outputs are weighted over timesteps."""
    losses: ControlnetLosses
    """How much each of the three distances counts."""
    online: bool
    """Ask the teacher for the U-Net's output at every step instead of its recorded outputs."""
    residuals: Residuals
    """Whether the teacher ControlNet's residuals are kept."""
    variants: dict[Name, ControlnetVariant]
    """Students of this family by name; {} leaves the family out."""

    @model_validator(mode="after")
    def _check(self) -> "DistillControlnet":
        for name, variant in self.variants.items():
            unused = [t for t in variant.terms if not getattr(self.losses, f"lambda_{t}")]
            if unused:
                raise ValueError(
                    f"variants.{name}.terms: {unused[0]} has lambda_{unused[0]} 0 in losses; raise "
                    "it or leave the term out"
                )
        return self
