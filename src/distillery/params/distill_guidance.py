"""The section distill_guidance of params.yaml: guidance in one evaluation.

Pairs that contradict each other are refused here, with the reason.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import (
    AboveZero,
    Backbone,
    Count,
    Frozen,
    Name,
    Positive,
    Share,
    Training,
    Weighting,
)


class Guidance(Frozen):
    """The guided teacher that a student learns to equal in one evaluation."""

    scale: AboveZero | Annotated[list[AboveZero], Field(min_length=2, max_length=2)]
    """Guidance scale, or [lowest, highest] for a student that is told it (w-embedding)."""
    rescale: Share
    """How far the guided output is brought to the conditional one's spread (Lin et al. 2024)."""
    online: bool
    """Ask the teacher at every step instead of its recorded outputs."""
    batched: bool
    """Make both evaluations of an online teacher in one batch instead of one after the other."""
    negative: bool
    """Teach negative prompts too: one more evaluation of the teacher a step; loads only here."""

    @model_validator(mode="after")
    def _check(self) -> "Guidance":
        if isinstance(self.scale, list) and self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale: the range {self.scale} is empty; give [lowest, highest]")
        return self

    @property
    def scale_range(self) -> tuple[float, float]:
        """Lowest and highest scale; equal where it is fixed."""
        bounds = self.scale if isinstance(self.scale, list) else [self.scale, self.scale]
        return float(bounds[0]), float(bounds[1])


class Lora(Frozen):
    """Size and place of the adapters (Hu et al. 2022)."""

    r: Positive
    """Rank of the update of each layer."""
    alpha: AboveZero
    """Scale of the update: it is multiplied by alpha / r."""
    targets: Literal["attention", "all"]
    """Layers that get an update: to_q, to_k, to_v, to_out.0, or every Linear and Conv2d."""


class GuidanceVariant(Frozen):
    """One student: a row of the memory table, or the user's own."""

    update: Literal["full", "lora"]
    """What is trained: all weights, or a LoRA on frozen ones."""
    objective: Literal["teacher", "noise"]
    """What is learnt: the guided teacher's outputs, or the noise in the image."""
    backbone: Backbone
    """U-Net that the student starts from: teacher, or unet/ and a variant of distill_unet."""
    learning_rate: AboveZero
    """Learning rate after warm-up; it falls to zero by half a cosine."""
    steps: Count
    """Number of training steps; 0 evaluates the start."""


class DistillGuidance(Frozen):
    """Guidance in one evaluation instead of two (LoRA-enhanced guidance distillation)."""

    training: Training
    """How all students of this family are trained."""
    weighting: Weighting
    """How the loss is weighted over timesteps."""
    guidance: Guidance
    """The guided teacher that students learn from."""
    lora: Lora
    """Size of the LoRA of variants that have one."""
    variants: dict[Name, GuidanceVariant]
    """Students of this family by name; {} leaves the family out."""

    @model_validator(mode="after")
    def _check(self) -> "DistillGuidance":
        adapted = [name for name, variant in self.variants.items() if variant.update == "lora"]
        if isinstance(self.guidance.scale, list) and adapted:
            raise ValueError(
                f"guidance.scale: a range needs new weights (w-embedding), which the LoRA variant "
                f"{adapted[0]} cannot have; give one scale, or keep variants with update: full only"
            )
        return self
