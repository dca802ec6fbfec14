"""The section deduplicate of params.yaml: duplicates and splits."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from distillery.params.base import Frozen, Share


def _require_place(name: str) -> str:
    if name in ("teacher_clip", ""):
        raise ValueError("name a vision model's folder, as data/scenes-sd/clip, or a hub id")
    return name


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
    embedding: Annotated[str, AfterValidator(_require_place)] | None
    """Vision model that also proposes pairs: a folder or hub id (CLIP, DINOv2, ...); null: none."""
    embedding_similarity: Share
    """Pairs whose embeddings have at least this cosine are compared, larger crops included."""
    split: Split
    """How the clusters of near-duplicates are divided into training, validation and test."""
