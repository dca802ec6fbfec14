"""The section extract_conditions of params.yaml: condition maps."""

from typing import Annotated

from pydantic import Field

from distillery.params.base import Count, Frozen, Kind


class ExtractConditions(Frozen):
    """Condition maps, made from every selected image."""

    kinds: Annotated[list[Kind], Field(min_length=1)]
    """Kinds of condition maps that are made."""
    canny_low: Count
    """Lower threshold of the Canny detector: weaker gradients are never edges."""
    canny_high: Count
    """Upper threshold of the Canny detector: stronger gradients always are edges."""
    sketch: str
    """What draws sketches: builtin (an algorithm), or the folder of a learned annotator."""
    segmentation: str
    """What segments: builtin (exact for scenes, else quantised colours), or a model's folder."""
    softedge: str
    """What draws soft edges: builtin (an algorithm), or the folder of a learned annotator."""
    depth: str
    """What estimates depth: builtin (exact, scenes only), or a model's folder or hub id."""
    normal: str
    """What depth the normals are of: builtin (exact, scenes only), or as in depth."""
    pose: str | None
    """What finds keypoints: the folder or hub id of a ViTPose model; null: nothing."""
    pose_detector: str | None
    """What finds people for it: the folder or hub id of a detector; null: one fills the image."""
