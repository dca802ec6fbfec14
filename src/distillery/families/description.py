"""`student.json`: a model folder that says what it is, so that it can be used without any params.

In: a model folder, what it builds on, which condition maps it takes, how it is sampled. Out: the
file, and from the file the folders it names, checked. Paths are relative to the folder, so that a
project may move as a whole; contents are hashes, so that a base that was replaced is noticed. Not
here: the models, the card (`about`).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from distillery.core.artifacts import content_of, read_json, write_json
from distillery.core.errors import DistilleryError

STUDENT = "student.json"
SCHEMA = 1
TEACHER = "teacher"


@dataclass(frozen=True)
class Sampling:
    """How a student is sampled.

    `evaluations_per_step` is 2 under classifier-free guidance and 1 where guidance was learned:
    then `guidance_scale` is the learned one, or [lowest, highest] where the student is told its
    scale by an embedding (`is_told_scale`). `takes_negative`: it can be told a negative prompt in
    that one evaluation.
    """

    evaluations_per_step: int = 2
    guidance_scale: float | Sequence[float] | None = None
    is_told_scale: bool = False
    takes_negative: bool = False


@dataclass(frozen=True)
class Base:
    """What a student builds on: a path relative to its folder, and that artefact's content hash."""

    path: str
    content: str


@dataclass(frozen=True)
class Description:
    """What `student.json` says; `builds_on` has `teacher`, and `backbone` where there is one."""

    family: str
    variant: str
    builds_on: Mapping[str, Base] = field(default_factory=dict)
    condition_kinds: Sequence[str] = ()
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def name(self) -> str:
        """Such as `unet/elr`."""
        return f"{self.family}/{self.variant}"

    def bases(self, folder: Path) -> dict[str, Path]:
        """The folders that the student in `folder` builds on.

        Raises DistilleryError for one that is not there, or holds something else by now.
        """
        return {name: _checked(folder, name, base) for name, base in self.builds_on.items()}


def base_of(base: Path, folder: Path) -> Base:
    """How a model in `folder` names the artefact `base`."""
    return Base(Path(os.path.relpath(base, folder)).as_posix(), content_of(base))


def write_description(folder: Path, description: Description) -> None:
    """Write `folder/student.json`; equal for equal models."""
    write_json(folder / STUDENT, {"schema": SCHEMA, **asdict(description)})


def read_description(folder: Path) -> Description:
    """What the model in `folder` says of itself.

    Raises DistilleryError where it says nothing, or in a form of another version.
    """
    path = folder / STUDENT
    values = read_json(path, remedy="give the folder of a trained model, or rerun its stage")
    if values.pop("schema", None) != SCHEMA:
        raise DistilleryError(f"{path}: of another version; rerun the stage that makes it")
    try:
        values["builds_on"] = {name: Base(**base) for name, base in values["builds_on"].items()}
        return Description(**{**values, "sampling": Sampling(**values["sampling"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise DistilleryError(
            f"{path}: not a model's description ({error}); rerun the stage that makes it"
        ) from None


def _checked(folder: Path, name: str, base: Base) -> Path:
    path = Path(os.path.normpath(folder / base.path))
    if not path.is_dir():
        raise DistilleryError(
            f"{folder}: its {name} is not at {path}; move both together, or make it again"
        )
    if content_of(path) != base.content:
        raise DistilleryError(
            f"{folder}: its {name} {path} is another one than it was trained on; rerun its stage"
        )
    return path
