"""`distillery export`: a student in the form that another tool reads.

In: a model folder that describes itself (`student.json`) or a model's name, a form, a place. Out:
a file or a folder there, shown to answer as the student does before it has its name. Not here: the
forms (`export_forms`), which take seconds to import, and the conversions (`distillery.export`).
"""

import warnings
from pathlib import Path

from distillery.commands.export_options import Options, require_fitting
from distillery.commands.quiet import be_quiet
from distillery.commands.trained import require_student
from distillery.core.artifacts import require_outside
from distillery.core.errors import DistilleryError


def export(
    folder: Path, to: str, out: Path, options: Options, controlnet: Path | None = None
) -> str:
    """Write the model in `folder` to `out` in the form `to`; returns a sentence to say.

    `folder` may be a name in the project here (`whole/student`). `controlnet`, the folder of a
    ControlNet student, makes a whole student of a U-Net with it.
    Raises DistilleryError where the model has no such form, saying which it has, and where the
    form's answers are not the student's.
    """
    require_fitting(to, options)
    if out.exists():
        raise DistilleryError(f"{out}: exists already; name a new place, or remove it first")
    require_outside(out)
    for model in filter(None, (folder, controlnet)):
        require_student(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        be_quiet()
        from distillery.commands.export_forms import write

        is_unet = write(folder, to, out, options, controlnet)
    if to == "comfyui-node":
        place = "diffusion_models" if is_unet else "controlnet"
        return (
            f"{out} is written; copy it to ComfyUI/custom_nodes, and {folder} into models/{place} "
            "there"
        )
    if to == "student":
        return f"{out} is written: {folder} and {controlnet or 'its ControlNet'} as one student"
    return f"{out} is written, and answers as {folder} does"
