"""Distilled ControlNets: small students of the teacher's, beside the unchanged U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillery.families.base import CONTROLLED, Family, Prediction
from distillery.families.facts import Facts, Shown, Texts
from distillery.families.snippets import EDGES, program


class _ControlNet(Family):
    def load(self, name, folders, device, dtype):
        from distillery.families.load import Student, trained_kinds
        from distillery.models.load import load_controlnet, load_unet

        unet = load_unet(folders.teacher / "unet", device, dtype)
        student = load_controlnet(folders.weights, device, dtype)
        return Student(unet, student, trained_kinds(folders.model))

    def profiled(self, folders, teacher):
        from distillery.models.load import load_controlnet

        student = load_controlnet(folders.weights, teacher.device).requires_grad_(True)
        return _alone(teacher, student, list(student.parameters()))

    def baselines(self, teacher, unet):
        from distillery.teacher.load import controlnet_kinds, load_teacher_controlnet

        return {
            f"teacher/control_{kind}": _alone(
                unet, load_teacher_controlnet(teacher, kind, unet), []
            )
            for kind in controlnet_kinds(teacher)
        }


def _alone(unet: Any, controlnet: Any, trained: list) -> Any:
    """A ControlNet's own evaluation; the U-Net counts among the parts."""
    from distillery.cost.workload import Profiled, controlnet_alone

    parts = {"unet": unet, "controlnet": controlnet}
    return Profiled(
        unet, parts, controlnet_alone(controlnet), trained, "ControlNet evaluation",
        {"controlnet": controlnet},
    )  # fmt: skip


def _size(name: str, variant: Mapping[str, Any], section: Mapping[str, Any], known: Any) -> Any:
    from distillery.cost.accounting import CONTROLNET as SCOPE
    from distillery.cost.accounting import teacher_controlnet
    from distillery.models.student_controlnet.model import PRESETS, StudentControlNet

    chosen = variant["student"]
    settings = PRESETS[chosen] if isinstance(chosen, str) else chosen
    student = StudentControlNet.empty(teacher_controlnet(known.parts), settings)
    return known.sized(f"controlnet/{name}", SCOPE, {"controlnet": student})


def _snippet(model: str, settings: Mapping[str, Any]) -> str:
    made = [f'controlnet = load_controlnet(Path("models/{model}"))']
    return program(made, "controlnet=controlnet", EDGES, "image=edges")


CONTROLNET = _ControlNet(
    name="controlnet",
    stage="distill_controlnet",
    variants_key="distill_controlnet.variants",
    views=("control_{condition}",),
    takes_maps=True,
    reference="control_{condition}",
    against=CONTROLLED,
    prediction=Prediction(has_control=True),
    profile_rows=("controlnet_",),
)
FACTS = Facts(
    sizes=_size,
    shown=Shown(
        teacher="teacher/control_canny",
        students=("controlnet/distilled", "controlnet/loha", "controlnet/modulated"),
        qualities=("edge_f1", "kid_teacher", "lpips_pair"),
        costs=("parameters_adapter", "latency_s"),
        tables=("controlnet",),
        beside=("teacher/guided", "teacher/control_canny_offset"),
        strip=("condition/canny", "reference/real", "teacher/control_canny"),
    ),
    texts=Texts(
        "Small ControlNets",
        "Students of the teacher's Canny ControlNet, taught by its images and by each of its "
        "residuals, beside the unchanged U-Net.",
        "ControlNets",
        {
            "original": "ControlNet, no distillation",
            "reduced_channel": "Reduced channel",
            "reduced_layer": "Reduced layer",
            "reduced_layer_d": "Reduced layer, diffusion loss only",
            "reduced_layer_d_td": "Reduced layer, no layerwise loss",
            "modulated": "Modulated",
            "loha": "LoHa",
            "distilled": "Distilled, ours",
        },
        _snippet,
        compared="PSNR, SSIM and LPIPS without further words compare with the real image.",
    ),
)
