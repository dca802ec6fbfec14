"""The section distill_unet of params.yaml: Stage I of ELR-Diffusion."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import AboveZero, Count, Factor, Frozen, Name, Training, Weighting


class Kd(Frozen):
    """The distillation objective."""

    space: Literal["native", "eps", "v", "x0"]
    """Prediction in which student and teacher are compared; native is the teacher's own."""
    weighting: Weighting
    """How the loss is weighted over timesteps."""
    lambda_diffusion: Factor
    """Factor of the plain denoising loss; 0 leaves it out."""
    lambda_feature: Factor
    """Factor of the distance of features inside the U-Net, which needs online; 0 leaves it out."""
    online: bool
    """Ask the teacher at every step instead of its recorded outputs."""

    @model_validator(mode="after")
    def _check(self) -> "Kd":
        if self.lambda_feature and not self.online:
            raise ValueError("lambda_feature needs the teacher's features: set online: true, or 0")
        return self


class UnetVariant(Frozen):
    """One Stage-I student; the paper's rows and the user's own alike."""

    architecture: Literal["dense", "low_rank"]
    """Architecture of the student: the teacher's own, or the low-rank one."""
    init: Name
    """Where the weights start: random, a method of init_student, or one of its plans by name."""
    objective: Literal["teacher", "noise"]
    """What is learnt: the teacher's outputs, or the noise in the image."""
    learning_rate: AboveZero
    """Learning rate after warm-up; it falls to zero by half a cosine."""
    steps: Count
    """Number of training steps; 0 evaluates the start."""

    @model_validator(mode="after")
    def _check(self) -> "UnetVariant":
        if self.architecture == "dense" and self.init != "random":
            raise ValueError(f"a dense student starts from random, not {self.init}")
        return self


class DistillUnet(Frozen):
    """Low-rank U-Nets, Stage I of ELR-Diffusion."""

    training: Training
    """How all students of this family are trained."""
    kd: Kd
    """What students with objective teacher minimise."""
    variants: Annotated[dict[Name, UnetVariant], Field(min_length=1)]
    """Students of this family by name; a new entry is a new student."""
