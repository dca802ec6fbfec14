"""Which student a command takes elsewhere: one family's, or a whole student made of two.

In: a model folder that describes itself (`student.json`), or a model's name in the project here;
perhaps a ControlNet student's folder. Out: a `Model`, loaded. Not here: what becomes of it.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.commands.find_model import USUAL_PARAMS, choose, folders_of, real
from distillery.core.errors import DistilleryError
from distillery.families import FAMILIES
from distillery.families.description import STUDENT, Description, read_description
from distillery.families.load import Folders, load_student
from distillery.families.whole import WHOLE

CONTROLNETS = ("controlnet", "control")


@dataclass(frozen=True)
class Model:
    """A student: where it lies, what it says of itself, what it builds on.

    `other` is where the ControlNet lies that makes it a whole student, whose name is then `name`.
    """

    folder: Path
    name: str
    description: Description
    folders: Folders
    unet: UNet2DConditionModel | None
    controlnet: ControlNetModel | None
    other: Path | None = None

    @property
    def teacher(self) -> Path:
        return self.folders.teacher

    @property
    def backbone(self) -> Path:
        """What it was trained on, the teacher where that is no student."""
        return self.folders.backbone or self.teacher


def open_model(model: Path, controlnet: Path | None = None) -> Model:
    """The student in the folder `model`, or of that name in the project here, with a ControlNet.

    Raises DistilleryError where there is none, or the two do not go together.
    """
    model, controlnet = real(model), controlnet and real(controlnet)
    is_whole = (model / STUDENT).is_file() and read_description(model).family == WHOLE.name
    if not is_whole and (model.exists() or model.parts[0] not in FAMILIES):
        return _open(model, controlnet)
    choice = choose(str(model), USUAL_PARAMS)
    own = choice.folders.controlnet
    if controlnet is not None and own is not None:
        raise DistilleryError(f"{model}: has a ControlNet of its own; leave out --controlnet")
    return _open(choice.folders.model, own or controlnet, choice.name if own else None)


def _open(folder: Path, controlnet: Path | None, name: str | None = None) -> Model:
    description = read_description(folder)
    if controlnet is not None and description.family in CONTROLNETS:
        raise DistilleryError(f"{folder}: is a ControlNet; --controlnet goes with a U-Net student")
    folders = folders_of(folder, description)
    student = load_student(description.name, folders)
    is_control = description.family in CONTROLNETS
    own = student.controlnet if is_control else None
    if controlnet is not None:
        other = read_description(controlnet)
        own = load_student(other.name, folders_of(controlnet, other)).controlnet
        if own is None:
            raise DistilleryError(f"--controlnet {controlnet}: {other.name} is no ControlNet")
    unet, name = None if is_control else student.unet, name or description.name
    return Model(folder, name, description, folders, unet, own, controlnet)
