"""The filter on the shape of an image."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class Aspect(Filter):
    """The longer side is too many times the shorter one."""

    reason = "aspect"
    max_aspect: Annotated[
        float,
        Field(
            ge=1,
            description="Images with a longer side of more than so many shorter ones go.",
        ),
    ]

    def reject(self, row: Candidate) -> str | None:
        shorter, longer = sorted((row.width_px, row.height_px))
        aspect = longer / shorter
        return f"{aspect:.2f} > {self.max_aspect:g}" if aspect > self.max_aspect else None
