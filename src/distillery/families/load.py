"""What each family of students is made of when it is used: a U-Net, perhaps a ControlNet.

In: `<family>/<variant>`, its model folder and the folders of what it builds on. Out: a `Student`:
frozen modules in eval mode, which condition maps they want and how they are to be sampled. How
each family is loaded is its own `Family.load`. Not here: sampling, training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.core.errors import DistilleryError
from distillery.data.conditions.reader import ConditionMaps
from distillery.families import FAMILIES
from distillery.families.description import read_description
from distillery.models.load import load_unet, seed_folder
from distillery.sampling.sampler import Control, Maps, Sampler


@dataclass(frozen=True)
class Student:
    """`kinds`: the condition maps that `controlnet` knows; `is_guided`: needs two evaluations.

    `learned_scale` is the guidance scale that is in its weights; None where there is none, or where
    it is told one. `takes_negative`: `unet` can be told a negative prompt without guidance.
    """

    unet: UNet2DConditionModel
    controlnet: ControlNetModel | None = None
    kinds: tuple[str, ...] = ()
    is_guided: bool = True
    learned_scale: float | None = None
    takes_negative: bool = False

    def refuses(self, guidance_scale: float) -> str | None:
        """What to say where a scale is asked for that `attach` does not apply; else None."""
        if self.learned_scale is None or guidance_scale <= 1:
            return None
        return (
            f"it has learned guidance {self.learned_scale:g}; guidance scale {guidance_scale:g} "
            "would apply guidance twice and is left out"
        )


@dataclass(frozen=True)
class Folders:
    """Where a student lies, and what it builds on; `teacher` as `prepare_teacher` made it.

    `model` is the variant's folder, `seed` one of the training seeds `seeds` that it holds;
    `guidance_scale` goes to a guidance student that is told its scale.
    """

    teacher: Path
    model: Path
    seed: int
    seeds: Sequence[int]
    backbone: Path | None = None
    controlnet: Path | None = None
    guidance_scale: float | None = None

    @property
    def weights(self) -> Path:
        """Where the model of the training seed lies."""
        return seed_folder(self.model, self.seed, self.seeds)


def load_student(
    variant: str,
    folders: Folders,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Student:
    """The student or teacher called `variant`, e.g. `unet/elr` or `teacher/control_canny`.

    Backbones and ControlNets that a student builds on are those of the first training seed. Raises
    DistilleryError for an unknown family and where a folder is missing or holds something else.
    """
    family, _, name = variant.partition("/")
    if family not in FAMILIES:
        raise DistilleryError(f"--variant {variant}: the families are {', '.join(FAMILIES)}")
    return FAMILIES[family].load(name, folders, device, dtype)


def open_maps(
    student: Student, conditions: Path | None, resolution_px: int
) -> ConditionMaps | None:
    """The extracted maps that the student wants, from the folder of all parts; None if it does not.

    Raises DistilleryError where it wants some and `conditions` is None.
    """
    if student.controlnet is None:
        return None
    if conditions is None:
        raise DistilleryError("generate: a ControlNet needs --conditions, the maps' folder")
    return ConditionMaps(conditions, student.kinds, resolution_px)


def attach(sampler: Sampler, student: Student, maps: Maps | None) -> Sampler:
    """`sampler` with the student in place of the teacher's U-Net, controlled by `maps` if given."""
    control = None if maps is None else Control(student.controlnet, maps)
    return replace(
        sampler.with_unet(student.unet),
        control=control,
        guidance_scale=sampler.guidance_scale if student.is_guided else 1.0,
    )


def load_backbone(
    folders: Folders, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> UNet2DConditionModel:
    """The U-Net that a student was trained on, a copy of its own.

    Raises DistilleryError where its folder is not given.
    """
    if folders.backbone is None:
        raise DistilleryError(f"{folders.model}: needs --backbone, the U-Net it was trained on")
    return load_unet(folders.backbone, device, dtype)


def trained_kinds(controlnet: Path) -> tuple[str, ...]:
    """Which condition maps a distilled ControlNet was trained on."""
    return tuple(read_description(controlnet).condition_kinds)
