"""The section deduplicate of params.yaml: duplicates and splits."""

from typing import Annotated, Literal

from pydantic import Field

from distillery.params.base import Frozen, Share


class Split(Frozen):
    """Shares of the clusters of near-duplicates; the rest is trained on."""

    val: Share
    """Share of the clusters that the validation loss is measured on."""
    test: Share
    """Share of the clusters that prompts, conditions and reference images come from."""


class Deduplicate(Frozen):
    """Duplicates over all parts, and which images are trained on."""

    max_hamming: Annotated[int, Field(ge=0, le=16)]
    """Pairs whose perceptual hashes differ in at most this many bits are compared."""
    min_ssim: Share
    """Compared pairs with at least this structural similarity count as duplicates."""
    mirrored: Literal["keep", "drop"]
    """Whether mirror images stay, in one split, or go; text and left and right make it a choice."""
    split: Split
    """How the clusters of near-duplicates are divided into training, validation and test."""
