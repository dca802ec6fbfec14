"""The filter on the size of an image."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class Resolution(Filter):
    """The shorter side is too short, or the longer one too long."""

    reason = "resolution"
    min_side_px: Annotated[
        int, Field(ge=1, description="Images whose shorter side is shorter are dropped.")
    ]
    max_side_px: Annotated[
        int, Field(ge=1, description="Images whose longer side is longer are dropped.")
    ]

    def reject(self, row: Candidate) -> str | None:
        shorter, longer = sorted((row.width_px, row.height_px))
        if shorter < self.min_side_px:
            return f"{shorter} px < {self.min_side_px} px"
        return f"{longer} px > {self.max_side_px} px" if longer > self.max_side_px else None
