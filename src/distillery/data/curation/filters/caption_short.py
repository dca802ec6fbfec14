"""The filter on captions of too few words."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter
from distillery.data.curation.filters.words import count_words


@dataclass(frozen=True)
class CaptionShort(Filter):
    """The caption has too few words; of scripts without blanks, letters are counted."""

    reason = "caption_short"
    min_caption_words: Annotated[
        int, Field(ge=1, description="Captions of fewer words are dropped.")
    ]

    def reject(self, row: Candidate) -> str | None:
        num_words, limit = count_words(row.caption), self.min_caption_words
        return f"{num_words} words < {limit}" if num_words < limit else None
