"""The filter on rows without a caption."""

from dataclasses import dataclass

from distillery.data.curation.filters.base import Candidate, Filter


@dataclass(frozen=True)
class CaptionEmpty(Filter):
    """There is no caption."""

    reason = "caption_empty"

    def reject(self, row: Candidate) -> str | None:
        return None if row.caption.strip() else "no text"
