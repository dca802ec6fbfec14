"""The section deduplicate of params.yaml: duplicates and splits."""

from typing import Annotated

from pydantic import Field

from distillery.params.base import Frozen, Share


class Split(Frozen):
    """Shares of clusters."""

    val: Share
    """share of near-duplicate clusters for validation"""
    test: Share
    """share of near-duplicate clusters for samples and metrics"""


class Deduplicate(Frozen):
    """Global duplicates and splits."""

    max_hamming: Annotated[int, Field(ge=0, le=16)]
    """perceptual-hash distance up to which a pair is compared"""
    min_ssim: Share
    """structural similarity from which a pair is a duplicate"""
    split: Split
