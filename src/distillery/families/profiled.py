"""What of each model is counted and timed: its parts, what it trains, one evaluation, one step.

In: a teacher folder, a folder of student families. Out: a `Profiled` by name. What an evaluation is
each family says (`Family.profiled`): what its students replace. Not here: counting and timing.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from distillery.cost.workload import Profiled
from distillery.families import STUDENTS, TRAINED, Family, family_of
from distillery.families.description import STUDENT, read_description
from distillery.families.load import Folders
from distillery.families.teacher import TEACHER
from distillery.families.whole import WHOLE
from distillery.models.load import load_unet


def open_models(
    teacher: Path, models: Path, whole: Mapping[str, Mapping[str, str]], device: torch.device
) -> dict[str, Profiled]:
    """Every model below `models` by `<family>/<variant>`, the teacher as `teacher`.

    `whole` are the parts of students that are made of others', by variant.
    """
    unet = load_unet(teacher / "unet", device)
    opened = {TEACHER.name: TEACHER.profiled(Folders(teacher, teacher, 0, [0]), unet)}
    for name, folder in student_folders(models).items():
        opened[name] = family_of(name).profiled(_folders(teacher, folder), unet)
    for name, parts in whole.items():
        folders = combined_folders(WHOLE, parts, teacher, models)
        opened[f"{WHOLE.name}/{name}"] = WHOLE.profiled(folders, unet)
    for family in STUDENTS.values():
        if any(family.owns(name) for name in opened):
            opened |= family.baselines(teacher, unet)
    return opened


def student_folders(models: Path) -> dict[str, Path]:
    """{"unet/elr": its folder, ...} of the trained students, sorted."""
    folders = [p.parent for family in TRAINED for p in models.glob(f"{family}/*/{STUDENT}")]
    return {f"{folder.parent.name}/{folder.name}": folder for folder in sorted(folders)}


def combined_folders(
    family: Family, parts: Mapping[str, str], teacher: Path, models: Path
) -> Folders:
    """Where the parts of a student lie that is made of others' models."""
    chosen = {part.option: models / part.model(parts) for part in family.builds_on}
    return Folders(teacher, chosen.pop("model"), 0, [0], **chosen)


def _folders(teacher: Path, folder: Path) -> Folders:
    bases = read_description(folder).bases(folder)
    bases.pop("teacher", None)
    return Folders(teacher, folder, 0, [0], **bases)
