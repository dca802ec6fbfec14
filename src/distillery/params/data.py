"""The section data of params.yaml: what all stages must agree on about the data."""

from typing import Annotated

from pydantic import Field, model_validator

from distillery.params.base import Count, Frozen


class Data(Frozen):
    """What every stage must agree on about the data."""

    parts: Annotated[list[Count], Field(min_length=1)]
    """Numbers 0, 1, ... of the parts that images are divided into and that run independently."""
    resolution_px: Annotated[int, Field(ge=32, le=2048, multiple_of=8)]
    """Side of the square images that models see, a multiple of 8; with control adapters of 64."""

    @model_validator(mode="after")
    def _check(self) -> "Data":
        if self.parts != list(range(len(self.parts))):
            raise ValueError(f"parts must be 0, 1, ... in order, got {self.parts}")
        return self
