"""The filter on captions of too many characters."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class CaptionLong(Filter):
    """The caption has too many characters."""

    reason = "caption_long"
    max_caption_chars: Annotated[
        int, Field(ge=1, description="Captions of more characters are dropped.")
    ]

    def reject(self, row: Candidate) -> str | None:
        length, limit = len(row.caption), self.max_caption_chars
        return f"{length} characters > {limit}" if length > limit else None
