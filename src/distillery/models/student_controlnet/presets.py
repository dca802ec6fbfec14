"""Student ControlNets described by a few settings, and the named ones.

In: the config of a teacher ControlNet and settings such as a share of its channels. Out: the
arguments of `StudentControlNet`. The teacher's config stands for the U-Net: a ControlNet has its
encoder's widths. Named students: the five of ControlNet knowledge distillation, whose sizes for
Stable Diffusion 2.1 come out as published, and one of our own, `distilled`.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import ControlNetModel

from distillery.core.errors import DistilleryError
from distillery.models.architectures import build_meta
from distillery.models.skeleton import on_meta
from distillery.models.strict import init_arguments
from distillery.models.student_controlnet.modulation import MODULATIONS

INITS = ("teacher", "random")
ALL_CONVS = ("conv1", "conv2", "downsamplers.0.conv")
SETTINGS: dict[str, Any] = {
    "channels": 1.0,  # a share of the teacher's, or a list with one number per level
    "layers_per_block": None,  # null: the teacher's
    "attention": "teacher",  # teacher, mid, none, or a list with true or false per level
    "head_width": None,  # channels per attention head; null: the teacher's in each level
    "norm_num_groups": None,  # null: the teacher's, halved until the widths fit the share
    "output_map": None,  # {output: source}; null: each output from the same place
    "modulation": "none",
    "hadamard_rank": None,  # null: no Hadamard convolutions
    "hadamard_convs": list(ALL_CONVS),  # names, or their endings, of the convolutions replaced
    "init": "teacher",  # teacher: slices of its weights; random
}
PRESETS: dict[str, dict[str, Any]] = {
    "original": {"channels": 1.0},
    "reduced_channel": {"channels": 0.7},
    "reduced_layer": {"channels": 0.6, "layers_per_block": 1},
    "modulated": {"channels": 0.6, "layers_per_block": 1, "modulation": "film"},
    "loha": {
        "channels": 0.6,
        "layers_per_block": 1,
        "modulation": "film",
        "hadamard_rank": 32,
    },
    # Hadamard products save parameters and no time; narrower levels save both. 6.1 times fewer
    # parameters and 5.8 times fewer MACs at SD 2.1's size, with every transformer kept: without
    # those outside the middle block edge F1 is 0.80 to 0.82 of the teacher's 0.92, with them 0.89.
    "distilled": {
        "channels": 0.45,
        "layers_per_block": 1,
        "modulation": "film",
    },
}
PRESETS = {name: {**SETTINGS, **settings} for name, settings in PRESETS.items()}
_WIDTH_TOLERANCE = 0.05
_UNSUPPORTED = ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim")


def meta_controlnet(architecture: str) -> ControlNetModel:
    """The teacher ControlNet of an architecture by name (`sd15`, `sd21`), on the meta device."""
    with on_meta():
        return ControlNetModel.from_unet(
            build_meta(architecture)["unet"], load_weights_from_unet=False
        )


def complete_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All of `SETTINGS`, those not given at their default.

    Raises DistilleryError for a key that does not exist or a value outside its choices.
    """
    unknown = [key for key in settings if key not in SETTINGS]
    if unknown:
        raise DistilleryError(f"student: no setting {unknown[0]!r}; use {', '.join(SETTINGS)}")
    full = {**SETTINGS, **settings}
    for key, allowed in (("modulation", tuple(MODULATIONS)), ("init", INITS)):
        if full[key] not in allowed:
            raise DistilleryError(f"{key}: {full[key]!r} is unknown; use {', '.join(allowed)}")
    for key in ("layers_per_block", "head_width", "norm_num_groups", "hadamard_rank"):
        if full[key] is not None and (type(full[key]) is not int or full[key] < 1):
            raise DistilleryError(f"{key}: {full[key]!r} is neither null nor a whole number from 1")
    return full


def student_arguments(teacher: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `StudentControlNet` (but `hadamard_ranks`) for a teacher's config and settings.

    Raises DistilleryError with the reason if the settings do not fit the teacher.
    """
    full, base = complete_settings(settings), teacher_arguments(teacher)
    widths = list(base["block_out_channels"])
    channels, groups = _channels(full["channels"], widths, base["norm_num_groups"])
    groups = full["norm_num_groups"] or groups
    down, mid = _block_types(full["attention"], base)
    layers = full["layers_per_block"] or base["layers_per_block"]
    return {
        **base,
        "block_out_channels": tuple(channels),
        "layers_per_block": layers,
        "down_block_types": down,
        "mid_block_type": mid,
        "norm_num_groups": groups,
        "attention_head_dim": _num_heads(full["head_width"], channels, base),
        "num_attention_heads": None,
        "unet_channels": tuple(teacher.get("unet_channels") or widths),
        "unet_layers_per_block": teacher.get("unet_layers_per_block") or base["layers_per_block"],
        "output_map": full["output_map"],
        "modulation": full["modulation"],
    }


def teacher_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ControlNetModel` in a config.

    Raises DistilleryError for a ControlNet with other inputs than latent, time, text and condition
    (SDXL's pooled text, class labels).
    """
    arguments = init_arguments(ControlNetModel, config)
    for key in _UNSUPPORTED:
        if arguments.get(key) is not None:
            raise DistilleryError(
                f"the teacher ControlNet has {key}: {arguments[key]!r}; students are made for "
                "Stable Diffusion 1.x, 2.x and turbo, which have none"
            )
    defaults = inspect.signature(ControlNetModel.__init__).parameters
    return {name: p.default for name, p in defaults.items() if name != "self"} | arguments


def _channels(
    channels: float | Sequence[int], widths: Sequence[int], groups: int
) -> tuple[list[int], int]:
    """Channels per level and norm groups; a share is rounded to a multiple of the groups.

    The teacher's groups are halved until no width is more than 5% from its share: 48 channels in
    16 groups could not be reduced to 60% otherwise.
    """
    if not isinstance(channels, int | float):
        return list(channels), groups
    if not 0 < channels <= 1:
        raise DistilleryError(
            f"channels: a share of the teacher's is above 0 and at most 1, not {channels}; "
            "or give a list with one number per level"
        )
    while True:
        rounded = [max(groups, round(channels * width / groups) * groups) for width in widths]
        exact = all(
            abs(r - channels * w) <= _WIDTH_TOLERANCE * channels * w
            for r, w in zip(rounded, widths, strict=True)
        )
        if exact or groups % 2 or groups <= 2:
            return rounded, groups
        groups //= 2


def _block_types(
    attention: str | Sequence[bool], base: Mapping[str, Any]
) -> tuple[tuple[str, ...], str]:
    """Types of the down blocks and the middle block with attention where it is wanted."""
    num_levels, mid = len(base["block_out_channels"]), base["mid_block_type"]
    if attention == "teacher":
        return tuple(base["down_block_types"]), mid
    if attention == "mid":
        return ("DownBlock2D",) * num_levels, mid
    if attention == "none":
        return ("DownBlock2D",) * num_levels, "UNetMidBlock2D"
    if isinstance(attention, str) or len(attention) != num_levels:
        raise DistilleryError(
            f"attention: {attention!r} is neither teacher, mid, none nor a list of {num_levels} "
            "times true or false, one per level"
        )
    return tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attention), mid


def _num_heads(
    head_width: int | None, channels: Sequence[int], base: Mapping[str, Any]
) -> tuple[int, ...]:
    """Heads per level: the divisor of the width next to width / head_width, ties upwards."""
    widths = base["block_out_channels"]
    heads = base["num_attention_heads"] or base["attention_head_dim"]
    heads = [heads] * len(widths) if isinstance(heads, int) else heads
    if len(channels) != len(widths):
        raise DistilleryError(
            f"channels: {len(channels)} levels, but the U-Net has {len(widths)}; give one number "
            "per level"
        )
    own = [head_width or w / h for w, h in zip(widths, heads, strict=True)]
    return tuple(_nearest_divisor(c, c / w) for c, w in zip(channels, own, strict=True))


def _nearest_divisor(number: int, wanted: float) -> int:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: (math.fabs(d - wanted), -d), default=1)
