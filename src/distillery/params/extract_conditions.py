"""The section extract_conditions of params.yaml: condition maps."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from distillery.data.conditions import KINDS
from distillery.data.conditions.own import RESIZES, parse_place
from distillery.params.base import Count, Frozen, Kind


def _read_kinds(value: Any) -> Any:
    """One line for whatever is wrong: a list of kinds, or a mapping of them to their sources."""
    if not isinstance(value, dict | list) or not value:
        raise ValueError("name at least one kind, as a list or as {kind: {from: ...}}")
    for kind in value:
        if kind not in KINDS:
            raise ValueError(f"{kind} is no kind; choose from {', '.join(KINDS)}")
        if isinstance(value, dict) and value[kind] not in (None, "builtin"):
            _check_source(kind, value[kind])
    if isinstance(value, dict):
        return {kind: None if source == "builtin" else source for kind, source in value.items()}
    return value


def _check_source(kind: str, source: Any) -> None:
    example = f"{kind}: {{from: column NAME}} or {kind}: {{from: folder PATH, resize: area}}"
    if not isinstance(source, dict) or not {"from"} <= set(source) <= {"from", "resize"}:
        raise ValueError(f"{kind}: {source} says not where its maps are; write {example}")
    if parse_place(source["from"]) is None:
        raise ValueError(f"{kind}.from: {source['from']!r}; write {example}")
    if source.get("resize", "nearest") not in RESIZES:
        raise ValueError(f"{kind}.resize: {source['resize']}; use {' or '.join(RESIZES)}")


Source = dict[Literal["from", "resize"], str]
Kinds = Annotated[
    Annotated[list[Kind], Field(min_length=1)] | dict[Kind, Source | None],
    BeforeValidator(_read_kinds),
]


class ExtractConditions(Frozen):
    """Condition maps, made from every selected image."""

    kinds: Kinds
    """Kinds of maps; {depth: {from: folder maps/depth}} takes your own, canny: null makes them."""
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
