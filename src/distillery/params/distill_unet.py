"""The section distill_unet of params.yaml: stage I of ELR-Diffusion."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import Count, Frozen, Name, Training, Weighting


class Kd(Frozen):
    """The distillation objective; `online` asks the teacher instead of its cache."""

    space: Literal["native", "eps", "v", "x0"]
    """prediction that is compared; native is the teacher's own"""
    weighting: Weighting
    lambda_diffusion: Annotated[float, Field(ge=0)]
    """weight of the plain denoising loss"""
    lambda_feature: Annotated[float, Field(ge=0)]
    """weight of the feature loss"""
    online: bool
    """ask the teacher instead of its cache"""

    @model_validator(mode="after")
    def _check(self) -> "Kd":
        if self.lambda_feature and not self.online:
            raise ValueError("lambda_feature needs the teacher's features: set online: true, or 0")
        return self


class UnetVariant(Frozen):
    """One Stage-I student; the paper's rows and the user's own alike."""

    architecture: Literal["dense", "low_rank"]
    """the teacher's own or the low-rank one"""
    init: Literal["random", "svd", "balanced", "data_aware", "planned"]
    """where the weights start"""
    objective: Literal["teacher", "noise"]
    """the teacher's outputs or the noise"""
    learning_rate: Annotated[float, Field(gt=0)]
    """after warm-up"""
    steps: Count
    """training steps; 0 evaluates the start"""

    @model_validator(mode="after")
    def _check(self) -> "UnetVariant":
        if self.architecture == "dense" and self.init != "random":
            raise ValueError(f"a dense student starts from random, not {self.init}")
        return self


class DistillUnet(Frozen):
    """Stage I of ELR-Diffusion."""

    training: Training
    kd: Kd
    variants: Annotated[dict[Name, UnetVariant], Field(min_length=1)]
