"""The section init_student of params.yaml: how low-rank students start."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import Frozen, Positive


class Rank(Frozen):
    """How ranks are chosen; `value` is the ratio, rank, energy or parameter target."""

    rule: Literal["ratio", "fixed", "energy", "target_total", "spectrum", "file"]
    """how a layer's rank is chosen; spectrum plans for a total of parameters from the weights"""
    value: Annotated[float, Field(gt=0)]
    """share of the full rank, rank, share of energy or parameters in total"""
    file: str | None
    """of rule file: what `distillery ranks --out` wrote"""
    keep_dense: list[str]
    """layers that are not decomposed"""

    @model_validator(mode="after")
    def _check(self) -> "Rank":
        if (self.rule == "file") != (self.file is not None):
            raise ValueError("file: belongs to rule file, and only there; set both or neither")
        return self


class InitStudent(Frozen):
    """Decomposition of the teacher."""

    methods: Annotated[list[Literal["svd", "data_aware", "planned"]], Field(min_length=1)]
    """decompositions to write; planned spreads as many parameters by what layers' outputs need"""
    rank: Rank
    num_moment_samples: Positive
    """cached samples that data_aware and planned measure activations on"""
