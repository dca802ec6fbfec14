"""The section extract_conditions of params.yaml: condition maps."""

from typing import Annotated

from pydantic import Field

from distillery.params.base import Count, Frozen, Kind


class ExtractConditions(Frozen):
    """Condition maps."""

    kinds: Annotated[list[Kind], Field(min_length=1)]
    """condition maps to make"""
    canny_low: Count
    """lower threshold of the Canny detector"""
    canny_high: Count
    """upper threshold of the Canny detector"""
    sketch: str
    """builtin (algorithmic) or a local folder of a learned annotator"""
    segmentation: str
    """builtin (exact for scenes, colour-quantised elsewhere) or a local folder"""
