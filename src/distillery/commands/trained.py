"""Which students are trained here, for who names one that is not.

In: a model's folder. Out: words for an error. No torch is imported here.
"""

from pathlib import Path

from distillery.core.errors import DistilleryError
from distillery.families import FAMILIES
from distillery.families.description import STUDENT

_USUAL = Path("models")


def require_student(model: Path) -> None:
    """Refuse what is neither a student's folder nor begins like a model's name."""
    is_name = model.parts[:1] and model.parts[0] in FAMILIES and not model.exists()
    if not is_name and not (model / STUDENT).is_file():
        raise DistilleryError(
            f"{model / STUDENT}: not found; give the folder of a trained model{known_near(model)}"
        )


def known_near(model: Path) -> str:
    """`; there are models/unet/elr, ...` beside a folder, or where models usually are."""
    files = {path for root in (model.parent.parent, _USUAL) for path in root.glob(f"*/*/{STUDENT}")}
    found = sorted(str(file.parent) for file in files if file.parts[-3] in FAMILIES)
    return f"; there are {', '.join(found)}" if found else ""
