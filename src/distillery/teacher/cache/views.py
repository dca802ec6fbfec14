"""The views of a teacher cache beside `base`: what each asks the teacher.

A view asks by one function (batch, noisy latents) -> native output [n, C, h, w]; a further kind of
view is a further entry in `VIEWS`. The views `control_<kind>` also read the batch's condition maps.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.data.conditions.reader import ConditionMaps
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT, repeated
from distillery.diffusion.control import ControlTeacher, online_residuals
from distillery.diffusion.objectives import online_output
from distillery.teacher.load import Teacher, encode_prompts, load_teacher_controlnet

Ask = Callable[[Batch, Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class View:
    """A view's name, what it asks the teacher, and the condition maps that its batches carry."""

    name: str
    ask: Ask
    maps: ConditionMaps | None = None


def _cond(teacher: Teacher) -> Ask:
    """The output for the record's caption."""
    return online_output(teacher.unet)


def _uncond(teacher: Teacher) -> Ask:
    """The output for the empty caption, the other half of classifier-free guidance."""
    empty = {TEXT: encode_prompts(teacher, [""])}
    ask = online_output(teacher.unet)

    def output(batch: Batch, noisy: Tensor) -> Tensor:
        told = repeated(empty, batch.conditioning)
        return ask(dataclasses.replace(batch, conditioning=told), noisy)

    return output


def _control(teacher: Teacher, folder: Path, kind: str) -> Ask:
    """The output for the caption with the teacher's ControlNet of `kind` applied to the map."""
    controlnet = load_teacher_controlnet(folder, kind, teacher.unet)
    return ControlTeacher(teacher.unet, online_residuals(controlnet, kind), view=None).output


VIEWS: dict[str, Callable[[Teacher], Ask]] = {"cond": _cond, "uncond": _uncond}
_CONTROL = "control_"


def condition_kind(view: str) -> str | None:
    """`canny` of `control_canny`; None for a view that needs no condition maps."""
    return view.removeprefix(_CONTROL) if view.startswith(_CONTROL) else None


def open_view(name: str, teacher: Teacher, folder: Path, maps: ConditionMaps | None = None) -> View:
    """A view of the teacher in `folder`, with its maps; DistilleryError for an unknown name."""
    if kind := condition_kind(name):
        return View(name, _control(teacher, folder, kind), maps)
    if name not in VIEWS:
        known = f"base, {', '.join(VIEWS)} or {_CONTROL}<kind>"
        raise DistilleryError(f"--view {name}: unknown; one of {known}")
    return View(name, VIEWS[name](teacher))


def read_maps(view: str, conditions: Path | None, resolution_px: int) -> ConditionMaps | None:
    """The condition maps that a view needs; DistilleryError where it needs some and has none."""
    kind = condition_kind(view)
    if kind is None:
        return None
    if conditions is None:
        raise DistilleryError(f"cache_teacher: view {view} needs --conditions, the maps' folder")
    return ConditionMaps(conditions, [kind], resolution_px)
