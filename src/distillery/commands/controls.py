"""What `distillery generate` is told of condition maps: `--conditions [KIND=]DIR[:SCALE]`.

In: the options' texts, a student, its folders, the prompts. Out: the student with the ControlNets
that take these kinds, its own or its teacher's, and the maps. Not here: drawing (`generate`).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.conditions.dark import brightest_of_dark, dark_line
from distillery.data.conditions.reader import MapFiles
from distillery.data.image_folders import list_images
from distillery.families.load import Folders, Student
from distillery.sampling.samples import Prompt
from distillery.sampling.several import Several, Use
from distillery.teacher.load import controlnet_kinds, load_teacher_controlnet

MAX_SCALE = 10
MAX_NAMED = 3


@dataclass(frozen=True)
class Given:
    """A folder of maps, their kind (None: to be known from the model) and their scale."""

    folder: Path
    kind: str | None
    scale: float = 1.0


def read_given(texts: Sequence[str], kind: str | None) -> list[Given]:
    """The options' folders; `kind` is that of a folder without one.

    Raises DistilleryError for an unknown kind, a scale out of range, a kind that is there twice or
    for no folder.
    """
    given = [_read(text) for text in texts]
    if kind is not None and given and all(one.kind for one in given):
        raise DistilleryError(f"--condition-kind {kind}: {texts[0]} names its kind; give one")
    if kind is not None:
        _require_kind(kind, f"--condition-kind {kind}")
        given = [replace(one, kind=one.kind or kind) for one in given]
    kinds = [one.kind for one in given]
    if len(set(kinds)) < len(kinds) or (len(kinds) > 1 and None in kinds):
        raise DistilleryError(
            f"--conditions {texts[-1]}: several folders need a kind of their own each, such as "
            "canny=DIR and depth=DIR"
        )
    return given


def _require_kind(kind: str, where: str) -> None:
    if kind not in KINDS:
        raise DistilleryError(f"{where}: {kind} is not one of {', '.join(KINDS)}")


def _read(text: str) -> Given:
    named, is_named, rest = text.partition("=")
    kind = None
    if is_named and not Path(text).exists():
        _require_kind(named, f"--conditions {text}")
        kind, text = named, rest
    if not text:
        raise DistilleryError("--conditions: no folder; give KIND=DIR")
    place, has_scale, last = text.rpartition(":")
    folder = Path(text).expanduser()
    if not has_scale or folder.exists():
        return Given(folder, kind)
    try:
        scale = float(last)
    except ValueError:
        return Given(folder, kind)  # of whom it is said that it is no folder
    if not 0 < scale <= MAX_SCALE:
        raise DistilleryError(
            f"--conditions {text}: the scale is {last}; give one above 0, up to {MAX_SCALE}"
        )
    return Given(Path(place).expanduser(), kind, scale)


def of_model(model: str, student: Student, given: Sequence[Given], teacher: Path) -> list[Given]:
    """The same, each with its kind. Raises DistilleryError for a kind that nothing here takes."""
    if not given:
        if student.controlnet is not None:
            raise DistilleryError(
                f"{model}: needs --conditions, a folder of {' or '.join(student.kinds)} maps named "
                "like the prompts"
            )
        return []
    if given[0].kind is None and student.controlnet is None:
        raise DistilleryError(
            f"--conditions {given[0].folder}: {model} takes no condition maps; for its teacher's "
            "ControlNets name their kind, such as canny=DIR"
        )
    if given[0].kind is None and len(student.kinds) > 1:
        raise DistilleryError(
            f"--conditions {given[0].folder}: {model} takes {', '.join(student.kinds)}; say which "
            f"these are, such as {student.kinds[0]}={given[0].folder}"
        )
    if given[0].kind is None:
        given = [replace(given[0], kind=student.kinds[0])]
    theirs = controlnet_kinds(teacher)
    for one in given:
        if not one.folder.is_dir():
            raise DistilleryError(f"--conditions {one.folder}: no folder; give one with images")
        if one.kind not in (*student.kinds, *theirs):
            own = f"takes {', '.join(student.kinds)}" if student.kinds else "takes no maps"
            raise DistilleryError(
                f"--conditions {one.folder}: {one.kind} maps: {model} {own}; its teacher has "
                f"ControlNets for {', '.join(theirs) or 'no kind'}"
            )
    return list(given)


def controlled(student: Student, given: Sequence[Given], folders: Folders) -> Student:
    """The student under these maps: by its own network those that it takes, else the teacher's."""
    if not given:
        return student
    scales = {one.kind: one.scale for one in given}
    own = {kind: scale for kind, scale in scales.items() if kind in student.kinds}
    if own.keys() == scales.keys() and set(own.values()) == {1.0}:
        return student
    uses = [Use(student.controlnet, student.kinds, own)] if own else []
    for kind in scales.keys() - own.keys():
        net = load_teacher_controlnet(folders.teacher, kind, student.unet)
        uses.append(Use(net, (kind,), {kind: scales[kind]}))
    uses.sort(key=lambda use: list(scales).index(next(iter(use.scales))))
    return replace(student, controlnet=Several(uses, tuple(scales)), kinds=tuple(scales))


def map_files(
    student: Student, given: Sequence[Given], wanted: Sequence[Prompt], size_px: int
) -> MapFiles | None:
    """The maps of all prompts; raises DistilleryError for one that is not there."""
    by_kind = {one.kind: list_images(one.folder) for one in given}
    for one in given:
        if lost := [prompt.key for prompt in wanted if prompt.key not in by_kind[one.kind]]:
            raise DistilleryError(
                f"{one.folder}: no map {lost[0]}.png ({len(lost)} are missing); it has "
                f"{', '.join(sorted(by_kind[one.kind])[:MAX_NAMED])}, ..."
            )
    for one in given:
        files = [by_kind[one.kind][prompt.key] for prompt in wanted]
        _say_cropped(one, files, size_px)
        if said := dark_line(str(one.folder), brightest_of_dark(f.read_bytes() for f in files)):
            print(said, file=sys.stderr)
    return MapFiles(by_kind, student.kinds, size_px) if given else None


def _say_cropped(given: Given, files: Sequence[Path], size_px: int) -> None:
    """On stderr how many maps are not square, of which the middle counts; reads their headers."""
    cropped = [path.name for path in files if not _is_square(path)]
    if cropped:
        print(
            f"{given.folder}: {len(cropped)} of {len(files)} maps are not square, first "
            f"{cropped[0]}; of each the middle counts, at {size_px} x {size_px} px",
            file=sys.stderr,
        )


def _is_square(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.width == image.height
    except (OSError, ValueError):
        return True  # `MapFiles` says what is wrong with it
