"""The section curate of params.yaml: the filters of curation."""

from typing import Annotated

from pydantic import Field

from distillery.params.base import Frozen, Positive, Share


class Curate(Frozen):
    """Filters; null switches one off. A row without the column passes, and is counted."""

    min_side_px: Positive
    """shorter side at least"""
    max_side_px: Positive
    """longer side at most, against decompression bombs"""
    max_aspect: Annotated[float, Field(ge=1)]
    """longer side over shorter side at most"""
    max_caption_chars: Positive
    """caption length at most"""
    min_caption_words: Positive
    """caption length at least"""
    max_punsafe: Share | None
    """LAION's probability of unsafe content at most"""
    max_pwatermark: Share | None
    """LAION's probability of a watermark at most"""
    min_aesthetic: float | None
    """LAION's aesthetic score at least"""
    min_similarity: float | None
    """LAION's image-text similarity at least"""
    stock_hosts: list[str]
    """URL hosts whose images are dropped"""
    blocklists: list[str]
    """files with one URL, md5 or sha256 a line"""
