"""The teacher's own variants: guided or not, from other noise, under its ControlNets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillery.data.conditions import KINDS
from distillery.families.base import CONTROLLED, OFFSET, Against, Family, Prediction
from distillery.families.facts import Facts, Texts
from distillery.families.snippets import program

_CONTROL = "control_"
_FIRST = next(iter(KINDS))  # the kind that ControlNets are usually distilled for: not named
_CONTROLLED = {
    kind: "Teacher + ControlNet" + ("" if kind == _FIRST else f", {kind}") for kind in KINDS
}


class _Teacher(Family):
    def variants(self, control_kinds: Sequence[str]) -> list[str]:
        """All that are drawn, where ControlNets of these kinds are used."""
        ends = ("", OFFSET)
        controlled = [f"{_CONTROL}{kind}{end}" for kind in control_kinds for end in ends]
        return ["guided", "unguided", f"guided{OFFSET}", *controlled]

    def load(self, name, folders, device, dtype):
        from distillery.families.load import Student
        from distillery.models.load import load_unet
        from distillery.teacher.load import load_teacher_controlnet

        unet = load_unet(folders.teacher / "unet", device, dtype)
        if not name.startswith(_CONTROL):
            return Student(unet, is_guided=name != "unguided")
        kind = name.removeprefix(_CONTROL).removesuffix(OFFSET)
        return Student(unet, load_teacher_controlnet(folders.teacher, kind, unet), (kind,))

    def profiled(self, folders, teacher):
        from distillery.cost.workload import Profiled, unet_alone

        return Profiled(teacher, {"unet": teacher}, unet_alone(teacher))

    def compared_with(self, variant: str) -> tuple[Against, ...]:
        return CONTROLLED if variant.startswith(_CONTROL) else self.against

    def predicts(self, variant: str) -> Prediction | None:
        return self.prediction if variant == "unguided" else None


def _snippet(model: str, settings: Mapping[str, Any]) -> str:
    return program([], "")


TEACHER = _Teacher(
    name="teacher",
    stage=None,
    variants_key=None,
    prediction=Prediction(is_guided=True),
)
FACTS = Facts(
    texts=Texts(
        "The teacher",
        "What every student learns from, and what it is compared with.",
        "Teacher",
        {
            "guided": "Teacher",
            "unguided": "Teacher, no guidance",
            "guided_offset": "Teacher, other noise",
            **{f"{_CONTROL}{kind}": text for kind, text in _CONTROLLED.items()},
            **{f"{_CONTROL}{k}{OFFSET}": f"{t}, other noise" for k, t in _CONTROLLED.items()},
        },
        _snippet,
    ),
)
