"""The section finetune_control of params.yaml: the control adapter, Stage II of ELR-Diffusion."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import (
    AboveZero,
    Backbone,
    Count,
    Factor,
    Frozen,
    Kind,
    Name,
    Positive,
    Share,
    Training,
    Weighting,
)


class Kronecker(Frozen):
    """The Kronecker update of the copied encoder."""

    n: Positive
    """Number of branches of the update, and the side of each matrix A."""
    r: Positive
    """Rank of the product u v in each branch."""
    alpha: AboveZero
    """Scale of the update: it is multiplied by alpha / r."""
    share_A: bool  # noqa: N815 (the name that the paper's matrix has)
    """Use one set of matrices A for all layers instead of one set a layer."""
    zero: Literal["A", "u", "v"]
    """Factor that starts at zero, so that the update starts as nothing."""
    indivisible: Literal["error", "skip", "lora"]
    """What becomes of layers whose sides n does not divide: refused, left alone, or a LoRA."""


class Drop(Frozen):
    """How often conditions and captions are left out in training."""

    each: Share
    """Probability that one condition is left out, for each by itself."""
    keep_all: Share
    """Probability that none of the conditions is left out."""
    drop_all: Share
    """Probability that all of the conditions are left out."""
    caption: Share
    """Probability that the caption is left out."""

    @model_validator(mode="after")
    def _check(self) -> "Drop":
        if self.keep_all + self.drop_all > 1:
            raise ValueError("keep_all and drop_all: add up to more than 1")
        return self


class ControlVariant(Frozen):
    """One adapter; the paper's rows and the user's own alike."""

    backbone: Backbone
    """Frozen U-Net that is controlled: teacher, or unet/ and a variant of distill_unet."""
    update: Literal["full", "kronecker"]
    """What of the copied encoder is trained: all of it, or a Kronecker update."""
    encoder: Literal["backbone", "teacher"]
    """Whose encoder is copied: its backbone's, as published, or the teacher's, which is dense."""
    learning_rate: AboveZero
    """Learning rate after warm-up; it falls to zero by half a cosine."""
    steps: Count
    """Number of training steps; 0 evaluates the start."""


class ControlLosses(Frozen):
    """Factors of what an adapter learns from; 0 leaves a term out."""

    lambda_diffusion: Factor
    """Factor of the diffusion loss, ELR-Diffusion's only one."""
    lambda_kd: Factor
    """Factor of the distance to the residuals of the teacher's ControlNets, one per condition."""

    @model_validator(mode="after")
    def _check(self) -> "ControlLosses":
        if not self.lambda_diffusion and not self.lambda_kd:
            raise ValueError("lambda_diffusion and lambda_kd: both are 0; nothing is learnt")
        return self


class FinetuneControl(Frozen):
    """Control adapters, Stage II of ELR-Diffusion."""

    training: Training
    """How all adapters of this family are trained."""
    weighting: Weighting
    """How the diffusion loss is weighted over timesteps."""
    losses: ControlLosses
    """What an adapter learns from, and how much each counts."""
    conditions: Annotated[list[Kind], Field(min_length=1)]
    """Kinds of maps that the adapter takes, in this order."""
    kronecker: Kronecker
    """Size of the Kronecker update of variants that have one."""
    norm: Literal["frozen", "official"]
    """Norm inside feature denormalisation: the U-Net's own, or without affine as published."""
    drop: Drop
    """How often conditions and captions are left out in training."""
    variants: dict[Name, ControlVariant]
    """Students of this family by name; {} leaves the family out."""
