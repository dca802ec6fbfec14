"""What of each model is counted and timed: its parts, what it trains, one evaluation, one step.

In: a teacher folder, a folder of student families. Out: a `Profiled` by name. An evaluation is what
a family's students replace: the U-Net's (`unet`, `guidance`), the ControlNet's alone
(`controlnet`), both together (`control`), and for `whole` one denoising step of an image with
everything: the student evaluates once, the guided teacher both halves in one batch. Not here:
counting and timing.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from distillery.core.artifacts import read_json
from distillery.cost.workload import (
    Profiled,
    batched,
    controlnet_alone,
    two_calls,
    unet_alone,
    with_control,
)
from distillery.families.load import TRAINING, Folders, load_student, open_controlnet, unet_folder
from distillery.sampling.sampler import load_unet
from distillery.teacher.load import load_controlnet

TEACHER = "teacher"


def open_models(
    teacher: Path, models: Path, whole: Mapping[str, Mapping[str, str]], device: torch.device
) -> dict[str, Profiled]:
    """Every model below `models` by `<family>/<variant>`, the teacher as `teacher`."""
    unet = load_unet(teacher / "unet", device)
    found = {TEACHER: Profiled(unet, {"unet": unet}, unet_alone(unet))}
    for name, folder in student_folders(models).items():
        found[name] = _OPEN[name.partition("/")[0]](folder, models, unet)
    kinds = sorted(p.name.removeprefix("controlnet_") for p in teacher.glob("controlnet_*"))
    if any(name.startswith("controlnet/") for name in found):
        found |= {f"{TEACHER}/control_{k}": _teacher_control(teacher, k, unet) for k in kinds}
    if any(name.startswith("guidance/") for name in found):
        for name, guide in (("teacher_batched", batched), ("teacher_two_calls", two_calls)):
            found[f"guidance/{name}"] = Profiled(unet, {"unet": unet}, guide(unet_alone(unet)))
    for name, parts in whole.items():
        found[f"whole/{name}"] = _whole(teacher, models, parts, unet)
        found["whole/teacher"] = _whole_teacher(teacher, kinds[0], unet)
    return found


def student_folders(models: Path) -> dict[str, Path]:
    """{"unet/elr": its folder, ...} of the families that are profiled, sorted."""
    folders = (p.parent for family in sorted(_OPEN) for p in models.glob(f"{family}/*/{TRAINING}"))
    return {f"{folder.parent.name}/{folder.name}": folder for folder in sorted(folders)}


def _unet(folder: Path, models: Path, teacher: UNet2DConditionModel) -> Profiled:
    unet = load_unet(folder, teacher.device).requires_grad_(True)
    return Profiled(unet, {"unet": unet}, unet_alone(unet), list(unet.parameters()))


def _control(folder: Path, models: Path, teacher: UNet2DConditionModel) -> Profiled:
    adapter = open_controlnet(folder).to(teacher.device).eval()
    unet = _backbone(folder, models, teacher)
    trained = [p for p in adapter.parameters() if p.requires_grad]
    parts = {"unet": unet, "adapter": adapter}
    run = with_control(unet, adapter)
    return Profiled(unet, parts, run, trained, "evaluation of U-Net and adapter")


def _controlnet(folder: Path, models: Path, teacher: UNet2DConditionModel) -> Profiled:
    student = open_controlnet(folder).to(teacher.device).requires_grad_(True).eval()
    return _alone(teacher, student, list(student.parameters()))


def _teacher_control(folder: Path, kind: str, unet: UNet2DConditionModel) -> Profiled:
    return _alone(unet, load_controlnet(folder, kind, unet), [])


def _alone(
    unet: UNet2DConditionModel, controlnet: ControlNetModel, trained: list[nn.Parameter]
) -> Profiled:
    """A ControlNet's own evaluation; the U-Net counts among the parts."""
    parts = {"unet": unet, "controlnet": controlnet}
    return Profiled(
        unet, parts, controlnet_alone(controlnet), trained, "ControlNet evaluation",
        {"controlnet": controlnet},
    )  # fmt: skip


def _guidance(folder: Path, models: Path, teacher: UNet2DConditionModel) -> Profiled:
    from distillery.models.lora.files import load_guidance_unet  # imports peft

    fused = load_guidance_unet(folder, _backbone(folder, models, teacher))
    unet = load_guidance_unet(folder, _backbone(folder, models, teacher), fuse=False)
    adapters = [p for name, p in unet.named_parameters() if "lora_" in name]
    trained = adapters or list(unet.parameters())
    for parameter in trained:
        parameter.requires_grad_(True)
    return Profiled(
        unet, {"unet": unet}, unet_alone(fused), trained, "U-Net evaluation, LoRA fused",
        {"unet": fused}, unet_alone(unet),
    )  # fmt: skip


def _whole(
    teacher: Path, models: Path, parts: Mapping[str, str], unet: UNet2DConditionModel
) -> Profiled:
    folders = Folders(
        teacher, models / "guidance" / parts["guidance"], 0, [0], models / parts["backbone"],
        models / "controlnet" / parts["controlnet"],
    )  # fmt: skip
    student = load_student("whole/student", folders, unet.device)
    built = {"unet": student.unet, "controlnet": student.controlnet}
    run = with_control(student.unet, student.controlnet)
    return Profiled(student.unet, built, run, per="denoising step of an image")


def _whole_teacher(folder: Path, kind: str, unet: UNet2DConditionModel) -> Profiled:
    controlnet = load_controlnet(folder, kind, unet)
    run = batched(with_control(unet, controlnet))
    parts = {"unet": unet, "controlnet": controlnet}
    return Profiled(unet, parts, run, per="denoising step of an image")


def _backbone(folder: Path, models: Path, teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """The U-Net that a student in `folder` builds on, a copy of its own."""
    name = read_json(folder / TRAINING)["settings"]["backbone"]
    return load_unet(unet_folder(models / name), teacher.device)


_OPEN = {"unet": _unet, "control": _control, "controlnet": _controlnet, "guidance": _guidance}
