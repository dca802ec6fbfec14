"""The backbone of a student: the right artefact, with a U-Net that fits the teacher.

In: what a variant's settings name, the folder that its stage was given. Out: the folder, checked.
Not here: loading it.
"""

from pathlib import Path

from diffusers import UNet2DConditionModel

from distillery.core.artifacts import MANIFEST, read_manifest
from distillery.core.errors import DistilleryError

TEACHER = "teacher"
# What must agree between a backbone and the teacher whose latents and captions are cached.
_SHARED_SETTINGS = ("in_channels", "out_channels", "cross_attention_dim")


def open_backbone(wanted: str, folder: Path, teacher: Path) -> Path:
    """The U-Net's folder in the backbone's; `wanted` is `teacher` or `unet/<variant>`.

    Raises DistilleryError if the folder holds another artefact, or a U-Net of other latents or
    captions than the teacher's.
    """
    stage = "prepare_teacher" if wanted == TEACHER else wanted.replace("unet/", "distill_unet/")
    if (folder / MANIFEST).is_file() and (label := read_manifest(folder)["label"]) != stage:
        raise DistilleryError(
            f"--backbone {folder}: made by {label}, but the variant's backbone is {wanted}; "
            f"give the output of {stage}"
        )
    unet = folder / "unet" if wanted == TEACHER else folder
    if not (unet / "config.json").is_file():
        raise DistilleryError(f"--backbone {folder}: no U-Net for {wanted} here; run {stage}")
    mine, given = (UNet2DConditionModel.load_config(path) for path in (teacher / "unet", unet))
    for name in _SHARED_SETTINGS:
        if mine[name] != given[name]:
            raise DistilleryError(
                f"--backbone {folder}: {name} is {given[name]}, the teacher's {mine[name]}; "
                "give a U-Net distilled from this teacher"
            )
    return unet
