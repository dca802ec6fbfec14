"""`distillery lora-transfer`: a LoRA of the teacher becomes part of a low-rank student.

In: a LoRA file, a student's folder. Out: a student's folder, which draws, trains and is exported
like the one that it came from. Not here: the merging (`export.lora_transfer`).
"""

from dataclasses import replace
from pathlib import Path

from distillery.commands.quiet import be_quiet
from distillery.commands.trained import require_student
from distillery.core.artifacts import require_outside
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.families.description import TEACHER, base_of, read_description, write_description


def lora_transfer(lora: Path, student: Path, out: Path, *, exact: bool) -> str:
    """Write the student with the LoRA to `out`; returns what to say of it."""
    if out.exists():
        raise DistilleryError(f"{out}: exists; name a new folder")
    require_outside(out)
    if not lora.exists():
        raise DistilleryError(f"{lora}: not there; give the LoRA's .safetensors")
    require_student(student)
    be_quiet()
    from distillery.commands.find_model import folders_of, real
    from distillery.export.lora_transfer import transfer
    from distillery.models.export import save_model

    student = real(student)
    described = read_description(student)
    teacher = folders_of(student, described).teacher
    made = transfer(lora, teacher, student, exact=exact)
    bases = {TEACHER: base_of(teacher, out)}
    with publish(out) as partial:
        save_model(made.unet, partial)
        write_description(partial, replace(described, variant=out.name, builds_on=bases))
    return (
        f"{out}: {described.name} with {lora.name} in {made.num_layers} layers; "
        f"{made.lost:.1%} of what the LoRA adds had no room"
    )
