"""The section distill_controlnet of params.yaml: controlNet distillation.

Pairs that contradict each other are refused here, with the reason; what does not fit the teacher is
refused by the student's architecture.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import Count, Frozen, Kind, Name, Positive, Training, Weighting

Factor = Annotated[float, Field(ge=0)]
Widths = Annotated[list[Positive], Field(min_length=1)]


class ControlnetLosses(Frozen):
    """What the three distances are multiplied by, and how the layerwise one is normalised."""

    lambda_diffusion: Factor
    """of the U-Net's error against the data"""
    lambda_teacher: Factor
    """of the U-Net's distance to the one under the teacher's control"""
    lambda_kd: Factor
    """of the distance of residuals, a mean over the ControlNet's outputs"""
    stats: Literal["teacher", "own"]
    """whose mean and spread normalise the student's residuals; own is blind to a wrong gain"""
    axes: Literal["sample", "layer_batch", "channel", "instance", "running"]
    """what shares a mean and spread: a sample, the batch, a channel, a sample's channel, steps"""


class Residuals(Frozen):
    """The teacher ControlNet's residuals; asking for them at every step is the usual way."""

    cache: bool
    """compute them once and keep them in the work folder"""
    budget_bytes: Positive
    """refuse to start if they would be larger"""


class StudentNet(Frozen):
    """A student's architecture; `models.student_presets` has the named ones."""

    channels: Annotated[float, Field(gt=0, le=1)] | Widths
    """a share of the teacher's, or one number per level"""
    layers_per_block: Positive | None
    """ResNets in a block; null is the teacher's"""
    attention: Literal["teacher", "mid", "none"] | list[bool]
    """where attention is kept, or true and false per level"""
    head_width: Positive | None
    """channels per attention head; null is the teacher's"""
    norm_num_groups: Positive | None
    """groups of the norms; null fits them to the widths"""
    output_map: dict[str, str] | None
    """source of each output; null takes the same place"""
    modulation: Literal["none", "film", "static", "se"]
    """after each ResNet and transformer block"""
    hadamard_rank: Positive | None
    """rank of Hadamard convolutions; null has none"""
    hadamard_convs: list[str]
    """names of the convolutions replaced, or their endings"""


class ControlnetVariant(Frozen):
    """One student: a row of the table, or the user's own."""

    student: (
        Literal["original", "reduced_channel", "reduced_layer", "modulated", "loha", "distilled"]
        | StudentNet
    )
    """a named architecture or its settings"""
    init: Literal["teacher", "unet", "random"]
    """slices of the teacher ControlNet, of the U-Net's encoder, or random weights"""
    terms: Annotated[list[Literal["diffusion", "teacher", "kd"]], Field(min_length=1)]
    """distances that it is trained on; diffusion alone is training without distillation"""
    learning_rate: Annotated[float, Field(gt=0)]
    """after warm-up"""
    steps: Count
    """training steps"""

    @model_validator(mode="after")
    def _check(self) -> "ControlnetVariant":
        if len(set(self.terms)) != len(self.terms):
            raise ValueError(f"terms: {', '.join(self.terms)} names one twice")
        return self


class DistillControlnet(Frozen):
    """ControlNet distillation."""

    condition: Kind
    """maps that the teacher ControlNet follows"""
    training: Training
    weighting: Weighting
    """of the two distances between the U-Net's outputs"""
    losses: ControlnetLosses
    online: bool
    """ask the teacher for the U-Net's output instead of its cache"""
    residuals: Residuals
    variants: dict[Name, ControlnetVariant]
    """students by name; {} leaves the family out"""

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
