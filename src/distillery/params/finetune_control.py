"""The section finetune_control of params.yaml: the control adapter."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import Count, Frozen, Kind, Name, Positive, Share, Training, Weighting


class Kronecker(Frozen):
    """The Kronecker update of the copied encoder."""

    n: Positive
    """branches, and the side of each A"""
    r: Positive
    """rank of u v"""
    alpha: Annotated[float, Field(gt=0)]
    """the update is scaled by alpha / r"""
    share_A: bool  # noqa: N815 (the name that the paper's matrix has)
    """one set of A for all layers"""
    zero: Literal["A", "u", "v"]
    """factor that starts at zero"""
    indivisible: Literal["error", "skip", "lora"]
    """what becomes of layers that n does not divide"""


class Drop(Frozen):
    """How often conditions and captions are left out in training."""

    each: Share
    """a condition"""
    keep_all: Share
    """none of them"""
    drop_all: Share
    """all of them"""
    caption: Share
    """the caption"""

    @model_validator(mode="after")
    def _check(self) -> "Drop":
        if self.keep_all + self.drop_all > 1:
            raise ValueError("keep_all and drop_all: add up to more than 1")
        return self


class ControlVariant(Frozen):
    """One adapter; the paper's rows and the user's own alike."""

    backbone: Annotated[str, Field(pattern=r"^(teacher|unet/[a-z0-9][a-z0-9_]*)$")]
    """frozen U-Net: teacher, or unet/ and a variant of distill_unet"""
    update: Literal["full", "kronecker"]
    """what of the copied encoder is trained: all, or a Kronecker update"""
    learning_rate: Annotated[float, Field(gt=0)]
    """after warm-up"""
    steps: Count
    """training steps"""


class ControlLosses(Frozen):
    """Factors of what an adapter learns from; 0 leaves a term out."""

    lambda_diffusion: Annotated[float, Field(ge=0)]
    """of the diffusion loss, ELR-Diffusion's only one"""
    lambda_kd: Annotated[float, Field(ge=0)]
    """of the distance to the residuals of the teacher's ControlNets, one per condition"""

    @model_validator(mode="after")
    def _check(self) -> "ControlLosses":
        if not self.lambda_diffusion and not self.lambda_kd:
            raise ValueError("lambda_diffusion and lambda_kd: both are 0; nothing is learnt")
        return self


class FinetuneControl(Frozen):
    """Stage II of ELR-Diffusion."""

    training: Training
    weighting: Weighting
    losses: ControlLosses
    conditions: Annotated[list[Kind], Field(min_length=1)]
    """kinds of maps that the adapter takes, in this order"""
    kronecker: Kronecker
    norm: Literal["frozen", "official"]
    """norm inside feature denormalisation: the U-Net's own, or without affine"""
    drop: Drop
    variants: dict[Name, ControlVariant]
    """students by name; {} leaves the family out"""
