"""What a filter is, and what it judges.

In: nothing. Out: `Candidate`, a decoded row, and `Filter`, the base of all filters. A filter is a
frozen dataclass: its fields are its keys under `curate` in the params, with their types and
descriptions, so the params' section, its table and its schema follow from them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

SCORES = ("punsafe", "pwatermark", "aesthetic", "similarity")


@dataclass(frozen=True)
class Candidate:
    """A decoded row. Scores are None where the source has no such column."""

    width_px: int
    height_px: int
    caption: str
    url: str | None
    sha256: str
    md5: str
    punsafe: float | None = None
    pwatermark: float | None = None
    aesthetic: float | None = None
    similarity: float | None = None


class Filter(ABC):
    """Keeps a candidate or says why not; `reason` names it in the funnel.

    Fields are written `Annotated[<type>, Field(..., description="...")]`. A filter with a field
    that is None is switched off.
    """

    reason: ClassVar[str]

    @abstractmethod
    def reject(self, row: Candidate) -> str | None:
        """None to keep the row, else the detail of its rejection: "31 px < 48 px"."""

    def condition(self) -> str | None:
        """SQL over `url` (text) and the scores (doubles) that is true only where `reject` refuses.

        By it, rows of a list of URLs go before they are downloaded. None, the default, for a
        filter that needs more than these columns.
        """
        return None

    @classmethod
    def params(cls) -> dict[str, Any]:
        """{key under `curate`: its annotated type}."""
        hints = get_type_hints(cls, include_extras=True)
        return {name: hints[name] for name in getattr(cls, "__dataclass_fields__", ())}
