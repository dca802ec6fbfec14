"""The whole student: low-rank U-Net, distilled guidance and distilled ControlNet in one pipeline.

It is not trained: `generate.whole` in the params names its parts. A folder of its own holds a
`student.json` that names them, and no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.families.base import BACKBONE, Family, Part, Prediction
from distillery.families.description import Description, base_of, read_description
from distillery.families.facts import Facts, Shown, Texts
from distillery.families.guidance import GUIDANCE
from distillery.families.snippets import EDGES, ONCE, guidance_unet, program

_STEP = "denoising step of an image"


class _Whole(Family):
    def load(self, name, folders, device, dtype):
        from distillery.families.load import trained_kinds
        from distillery.models.load import load_controlnet

        if folders.controlnet is None:
            raise DistilleryError(
                f"whole/{name}: needs --controlnet, a distilled ControlNet's folder"
            )
        student = GUIDANCE.load(name, folders, device, dtype)
        controlnet = load_controlnet(folders.controlnet, device, dtype)
        return replace(student, controlnet=controlnet, kinds=trained_kinds(folders.controlnet))

    def profiled(self, folders, teacher):
        import torch

        from distillery.cost.workload import Profiled, with_control

        student = self.load("student", folders, teacher.device, torch.float32)
        parts = {"unet": student.unet, "controlnet": student.controlnet}
        run = with_control(student.unet, student.controlnet)
        return Profiled(student.unet, parts, run, per=_STEP)

    def baselines(self, teacher, unet):
        from distillery.cost.workload import Profiled, batched, with_control
        from distillery.teacher.load import controlnet_kinds, load_teacher_controlnet

        controlnet = load_teacher_controlnet(teacher, controlnet_kinds(teacher)[0], unet)
        parts = {"unet": unet, "controlnet": controlnet}
        run = batched(with_control(unet, controlnet))
        return {"whole/teacher": Profiled(unet, parts, run, per=_STEP)}


def describe(folder: Path, guidance: Path, controlnet: Path) -> Description:
    """What `folder` says of the whole student of two students' folders.

    Raises DistilleryError where one of them is something else, or they have different teachers.
    """
    unet, control = read_description(guidance), read_description(controlnet)
    for path, part, wanted in ((guidance, unet, "guidance"), (controlnet, control, "controlnet")):
        if part.family != wanted:
            raise DistilleryError(f"{path}: a whole student has a {wanted} student here")
    if unet.builds_on["teacher"].content != control.builds_on["teacher"].content:
        raise DistilleryError(f"{controlnet}: has another teacher than {guidance}; rerun its stage")
    bases = {**unet.bases(guidance), "model": guidance, "controlnet": controlnet}
    named = {name: base_of(base, folder) for name, base in bases.items()}
    return Description("whole", folder.name, named, control.condition_kinds, unet.sampling)


def _snippet(model: str, settings: Mapping[str, Any]) -> str:
    lora = settings["lora"]
    made = [
        guidance_unet(f"guidance/{settings['guidance']}", settings["backbone"], lora),
        f'controlnet = load_controlnet(Path("models/controlnet/{settings["controlnet"]}"))',
    ]
    once = f", {ONCE}" if lora["objective"] == "teacher" else ""
    return program(made, "unet=unet, controlnet=controlnet", EDGES, f"image=edges{once}")


WHOLE = _Whole(
    name="whole",
    stage=None,
    variants_key="generate.whole",
    builds_on=(
        Part("model", "guidance", "guidance"),
        Part(BACKBONE, "backbone"),
        Part("controlnet", "controlnet", "controlnet"),
    ),
    takes_maps=True,
    reference="control_{condition}",
    prediction=Prediction(is_guided=True, has_control=True),
)
FACTS = Facts(
    shown=Shown(
        teacher="teacher/control_canny",
        students=("whole/student",),
        qualities=("reader_shape", "edge_f1", "kid"),
        costs=("parameters_total", "latency_s"),
        cost_baseline="whole/teacher",
        beside=("teacher/guided",),
        strip=("condition/canny", "reference/real", "teacher/control_canny", "teacher/guided"),
        hero=("condition/canny", "teacher/control_canny", "whole/student", "teacher/guided",
              "unet/elr", "guidance/lora_distill"),
    ),
    texts=Texts(
        "The whole student",
        "Everything together in one pipeline: the low-rank U-Net, guidance distilled into a LoRA "
        "on top of it, and a distilled ControlNet, against the guided teacher with its full "
        "ControlNet.",
        "Whole student",
        {
            "student": "Whole student",
            "student_planned": "Whole student, planned ranks",
            "student_elr": "Whole student, ELR's U-Net",
        },
        _snippet,
        baselines={"teacher": "Guided teacher with ControlNet"},
    ),
)  # fmt: skip
