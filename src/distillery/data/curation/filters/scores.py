"""The filters on the scores that a source brings; a row without a score passes."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from distillery.data.curation.filters.base import Candidate, Filter


def _above(score: float | None, maximum: float) -> str | None:
    return f"{score:g} > {maximum:g}" if score is not None and score > maximum else None


def _below(score: float | None, minimum: float) -> str | None:
    return f"{score:g} < {minimum:g}" if score is not None and score < minimum else None


def _is_above(name: str, maximum: float) -> str:
    return f"isfinite({name}) AND {name} > {maximum!r}::DOUBLE"


def _is_below(name: str, minimum: float) -> str:
    return f"isfinite({name}) AND {name} < {minimum!r}::DOUBLE"


class Scored(Filter):
    """A filter on the column `score`; its one field is the limit."""

    score: ClassVar[str]


@dataclass(frozen=True)
class Unsafe(Scored):
    """The probability of unsafe content is too high."""

    reason = score = "punsafe"
    max_punsafe: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Images of a higher `punsafe` are dropped; null keeps them."),
    ]

    def reject(self, row: Candidate) -> str | None:
        return _above(row.punsafe, self.max_punsafe)

    def condition(self) -> str:
        return _is_above("punsafe", self.max_punsafe)


@dataclass(frozen=True)
class Watermark(Scored):
    """The probability of a watermark is too high."""

    reason = score = "pwatermark"
    max_pwatermark: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Images of a higher `pwatermark` are dropped; null keeps them."),
    ]

    def reject(self, row: Candidate) -> str | None:
        return _above(row.pwatermark, self.max_pwatermark)

    def condition(self) -> str:
        return _is_above("pwatermark", self.max_pwatermark)


@dataclass(frozen=True)
class Aesthetic(Scored):
    """The aesthetic score is too low."""

    reason = score = "aesthetic"
    min_aesthetic: Annotated[
        float | None,
        Field(description="Images of a lower LAION aesthetic score are dropped; null keeps them."),
    ]

    def reject(self, row: Candidate) -> str | None:
        return _below(row.aesthetic, self.min_aesthetic)

    def condition(self) -> str:
        return _is_below("aesthetic", self.min_aesthetic)


@dataclass(frozen=True)
class Similarity(Scored):
    """The similarity of image and text is too low."""

    reason = score = "similarity"
    min_similarity: Annotated[
        float | None,
        Field(description="Images less similar to their caption are dropped; null keeps them."),
    ]

    def reject(self, row: Candidate) -> str | None:
        return _below(row.similarity, self.min_similarity)

    def condition(self) -> str:
        return _is_below("similarity", self.min_similarity)
