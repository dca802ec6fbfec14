"""What the families' sections of params.yaml must find in one another.

A family builds on what others make: a U-Net variant, a view of the cache, condition maps. Each
contradiction is a ValueError `key: reason`, as pydantic's validators raise it.
"""

import posixpath
from itertools import permutations
from pathlib import PurePosixPath
from typing import Any

from distillery.data.conditions import KINDS
from distillery.data.conditions.own import own_places
from distillery.families import TRAINED
from distillery.scenes_teacher import KINDS as SCENES_KINDS

TEACHER = "teacher"
SCENES = "scenes"
# Control adapters halve the latent once a level but the last: 8 px x 2 for the scenes teacher, x 8
# for Stable Diffusion. Other stages take any multiple of 8.
_SCENES_ADAPTER_PX, _SD_ADAPTER_PX = 16, 64
_HOLD_OTHERS = ("models", "work")  # paths whose folders are written one by one, never replaced


def require_parts(params: Any) -> None:
    """Check every reference from one section of `params` to another."""
    _require_apart(params.paths)
    for family in TRAINED.values():
        if family.has_backbone:
            _require_backbones(params, family.stage)
    _require_decompositions(params)
    _require_drawers(params)
    _require_maps(params)
    _require_views(params)
    _require_controlnets(params)
    _require_maps_of_latents(params)
    _require_whole(params)
    _require_resolution(params)


def _require_apart(paths: Any) -> None:
    """Stages replace their folders, and what others keep in them."""
    places = {key: PurePosixPath(posixpath.normpath(place)) for key, place in paths}
    for (inner, place), (outer, other) in permutations(places.items(), 2):
        if place != other and (outer in _HOLD_OTHERS or not place.is_relative_to(other)):
            continue
        how = "the same folder as" if place == other else "inside"
        raise ValueError(
            f"paths.{inner}: {place} is {how} paths.{outer} ({other}), where one would replace the "
            "other; choose a folder of its own"
        )


def _require_backbones(params: Any, section: str) -> None:
    for name, variant in getattr(params, section).variants.items():
        _require_backbone(params, f"{section}.variants.{name}.backbone", variant.backbone)


def _require_backbone(params: Any, key: str, backbone: str) -> None:
    known = [TEACHER, *(f"unet/{name}" for name in params.distill_unet.variants)]
    if backbone not in known:
        raise ValueError(f"{key}: {backbone} is not there; choose one of {', '.join(known)}")
    wanted = f"{params.paths.models}/{TEACHER}"
    if backbone == TEACHER and params.paths.teacher != wanted:
        raise ValueError(f"paths.teacher: must be {wanted}, where {key} looks for it")


def _require_decompositions(params: Any) -> None:
    methods, plans = params.init_student.methods, params.init_student.plans
    if "svd" not in methods:
        raise ValueError("init_student.methods: add svd, whose layers the report shows")
    for name, variant in params.distill_unet.variants.items():
        if variant.init not in ("random", *methods, *plans):
            raise ValueError(
                f"distill_unet.variants.{name}.init: {variant.init} needs {variant.init} in "
                "init_student.methods or init_student.plans"
            )


def _require_drawers(params: Any) -> None:
    """Something must draw each kind that no map is given of."""
    section = params.extract_conditions
    own = own_places(section.kinds)
    for name, (where, place) in own.items():
        if where == "column" and place not in params.ingest.map_columns:
            raise ValueError(
                f"extract_conditions.kinds.{name}: column {place} is not taken along; set "
                f"ingest.map_columns: [{place}]"
            )
    for kind in (KINDS[name] for name in section.kinds if name not in own):
        from_labels = kind.of_labels is not None and params.ingest.source == SCENES
        if kind.draw is None and not from_labels and not kind.is_learned(dict(section)):
            raise ValueError(f"extract_conditions.kinds: {kind.name}: {kind.no_drawer()}")


def _require_maps(params: Any) -> None:
    known = params.extract_conditions.kinds
    wanted = {"cache_teacher.control_kinds": params.cache_teacher.control_kinds}
    if params.finetune_control.variants:
        wanted["finetune_control.conditions"] = params.finetune_control.conditions
    for key, kinds in wanted.items():
        if lost := [kind for kind in kinds if kind not in known]:
            raise ValueError(f"{key}: {lost[0]} maps are not in extract_conditions.kinds")


def _require_views(params: Any) -> None:
    controlnet, cache = params.distill_controlnet, params.cache_teacher
    if controlnet.variants and controlnet.condition not in cache.control_kinds:
        raise ValueError(
            f"distill_controlnet.condition: {controlnet.condition} is not in "
            "cache_teacher.control_kinds; add it there, or set variants: {}"
        )
    for family in TRAINED.values():
        lost = [v for v in family.views if v not in cache.views and "{" not in v]
        if getattr(params, family.stage).variants and lost:
            raise ValueError(f"cache_teacher.views: {family.stage} needs {lost[0]}; add it")


def _require_controlnets(params: Any) -> None:
    """Those that a control adapter learns from, and of the scenes teacher all that are asked."""
    section, teacher = params.finetune_control, params.prepare_teacher
    is_scenes = teacher.source == SCENES and not teacher.train
    known = {*teacher.controlnets, *(SCENES_KINDS if is_scenes else ())}
    asked = params.cache_teacher.control_kinds
    if is_scenes and (lost := [kind for kind in asked if kind not in known]):
        raise ValueError(
            f"cache_teacher.control_kinds: the scenes teacher has no ControlNet for {lost[0]}, "
            f"only for {', '.join(SCENES_KINDS)}"
        )
    if not section.variants or not section.losses.lambda_kd or teacher.train:
        return
    if lost := [kind for kind in section.conditions if kind not in known]:
        raise ValueError(
            f"finetune_control.losses.lambda_kd: needs a ControlNet for {lost[0]}; name it in "
            "prepare_teacher.controlnets, or set 0"
        )


def _require_maps_of_latents(params: Any) -> None:
    """Condition maps are those of the images."""
    if params.cache_teacher.generated is None:
        return
    for section in (family.stage for family in TRAINED.values() if family.takes_maps):
        if getattr(params, section).variants:
            raise ValueError(
                f"cache_teacher.generated: the maps that {section} trains on are those of the "
                f"images, not of generated latents; set null, or {section}.variants: {{}}"
            )


def _require_whole(params: Any) -> None:
    for name, whole in params.generate.whole.items():
        key = f"generate.whole.{name}"
        guidance = params.distill_guidance.variants.get(whole.guidance)
        if guidance is None:
            raise ValueError(f"{key}.guidance: {whole.guidance} is not in distill_guidance")
        if guidance.backbone != whole.backbone:
            raise ValueError(
                f"{key}.backbone: {whole.backbone}, but {whole.guidance} was trained on "
                f"{guidance.backbone}; give that one"
            )
        if whole.controlnet not in params.distill_controlnet.variants:
            raise ValueError(f"{key}.controlnet: {whole.controlnet} is not in distill_controlnet")


def _require_resolution(params: Any) -> None:
    """Refuse at once what one stage would refuse after all others have run."""
    is_scenes = params.prepare_teacher.source == SCENES
    needed = _SCENES_ADAPTER_PX if is_scenes else _SD_ADAPTER_PX
    if params.finetune_control.variants and params.data.resolution_px % needed:
        raise ValueError(
            f"data.resolution_px: {params.data.resolution_px} is no multiple of {needed}, which "
            "finetune_control needs; choose one, or set finetune_control.variants: {}"
        )
