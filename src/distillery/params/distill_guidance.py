"""The section distill_guidance of params.yaml: loRA-enhanced guidance distillation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import Count, Frozen, Name, Positive, Share, Training, Weighting

Scale = Annotated[float, Field(gt=0)]


class Guidance(Frozen):
    """The guided teacher that a student learns to equal in one evaluation."""

    scale: Scale | Annotated[list[Scale], Field(min_length=2, max_length=2)]
    """guidance scale, or [lowest, highest] that the student is told (w-embedding)"""
    rescale: Share
    """of the guided output to the conditional one's spread (Lin et al. 2024); 0 is none"""
    online: bool
    """ask the teacher instead of its cache"""
    batched: bool
    """both evaluations of an online teacher in one batch; else one after the other"""

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
    """rank"""
    alpha: Annotated[float, Field(gt=0)]
    """the update is scaled by alpha / r"""
    targets: Literal["attention", "all"]
    """layers that get one: to_q, to_k, to_v, to_out.0, or every Linear and Conv2d"""


class GuidanceVariant(Frozen):
    """One student: a row of the memory table, or the user's own."""

    update: Literal["full", "lora"]
    """what is trained: all weights, or a LoRA on frozen ones"""
    objective: Literal["teacher", "noise"]
    """the guided teacher's outputs, or the noise"""
    backbone: Annotated[str, Field(pattern=r"^(teacher|unet/[a-z0-9][a-z0-9_]*)$")]
    """U-Net that it starts from: teacher, or unet/ and a variant of distill_unet"""
    learning_rate: Annotated[float, Field(gt=0)]
    """after warm-up"""
    steps: Count
    """training steps"""


class DistillGuidance(Frozen):
    """LoRA-enhanced guidance distillation."""

    training: Training
    weighting: Weighting
    guidance: Guidance
    lora: Lora
    variants: dict[Name, GuidanceVariant]
    """students by name; {} leaves the family out"""

    @model_validator(mode="after")
    def _check(self) -> "DistillGuidance":
        adapted = [name for name, variant in self.variants.items() if variant.update == "lora"]
        if isinstance(self.guidance.scale, list) and adapted:
            raise ValueError(
                f"guidance.scale: a range needs new weights (w-embedding), which the LoRA variant "
                f"{adapted[0]} cannot have; give one scale, or keep variants with update: full only"
            )
        return self
