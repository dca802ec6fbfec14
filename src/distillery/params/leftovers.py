"""What earlier runs left in a run's folders: models, images, metrics and parts of no name any more.

In: params. Out: the files and folders that they do not name, and a stage's inputs without these. A
run replaces what it makes again; what it no longer makes stays, and is none of its. Nothing is
deleted here.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from distillery.core.artifacts import MANIFEST
from distillery.core.errors import DistilleryError
from distillery.families import FAMILIES, TRAINED
from distillery.families.teacher import TEACHER
from distillery.params.model import Params

__computes__ = False  # what is left out is not in the hashes of the inputs


def leftovers(params: Params) -> list[Path]:
    """What lies in the folders of `params` without a name in them, in the order of the stages.

    Not what holds another of their folders.
    """
    kept = [_absolute(Path(path)) for path in params.paths.model_dump().values()]
    return [
        path
        for folder, names in _named(params).items()
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if not path.name.startswith(".") and path.name not in names
        if not any(other.is_relative_to(_absolute(path)) for other in kept)
    ]


def shown(path: Path) -> str:
    """A path on one line, whatever is in its name."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def _absolute(path: Path) -> Path:
    """Links are places of their own: one to a model is not that model."""
    return Path(os.path.abspath(path))


def _named(params: Params) -> dict[Path, set[str]]:
    """{folder: names of what this run makes in it}, of folders where a run leaves nothing else."""
    paths, init = params.paths, params.init_student
    parts = set(map(str, params.data.parts))
    kinds = params.cache_teacher.control_kinds
    views = {"base", *params.cache_teacher.views, *(f"control_{kind}" for kind in kinds)}
    variants = {
        name: set(_variants(params, family.variants_key)) if family.variants_key else set()
        for name, family in FAMILIES.items()
    } | {TEACHER.name: set(TEACHER.variants(kinds))}
    return {
        Path(paths.curated): parts,
        Path(paths.conditions): parts,
        Path(paths.teacher_cache): views,
        **{Path(paths.teacher_cache, view): parts for view in sorted(views)},
        Path(paths.init): {*init.methods, *init.plans, "random"},
        **{Path(paths.models, name): variants[name] for name in TRAINED},
        **{Path(paths.samples, name): variants[name] for name in FAMILIES},
        **{Path(paths.metrics, n): {f"{v}.json" for v in variants[n]} for n in FAMILIES},
    }


def _variants(params: Params, key: str) -> Iterable[str]:
    section = params
    for name in key.split("."):
        section = getattr(section, name)
    return section


@contextlib.contextmanager
def without(
    left: Iterable[Path], inputs: Mapping[str, Path], label: str
) -> Iterator[dict[str, Path]]:
    """`inputs`, where a folder that holds something of `left` is one of links to the rest of it.

    One line says what `label` leaves out. Errors of this package name the folder itself.
    """
    gone = {_absolute(path): path for path in left}
    with tempfile.TemporaryDirectory(prefix="distillery-") as place:
        seen, unused = dict(inputs), set()
        for name, path in inputs.items():
            if inside := {one for one in gone if _absolute(path) in one.parents}:
                seen[name] = Path(place, name, path.name)
                unused |= inside
                _link(_absolute(path), inside, seen[name])
        if unused:
            names = ", ".join(sorted(shown(gone[path]) for path in unused))
            print(f"{label}: leaves out what the params do not name: {names}", file=sys.stderr)
        try:
            yield seen
        except DistilleryError as error:
            text = str(error)
            for name, path in seen.items():
                text = text.replace(str(path), str(inputs[name]))
            raise type(error)(text) from error


def _link(folder: Path, left: set[Path], target: Path) -> None:
    """`target` as a folder of links to what `folder` holds, but for what is `left`.

    Folders of plain files are folders there too: a search for files does not follow links to them.
    """
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if path in left:
            continue
        is_plain = path.is_dir() and not path.is_symlink() and not (path / MANIFEST).is_file()
        if is_plain or any(path in one.parents for one in left):
            _link(path, left, target / path.name)
        else:
            (target / path.name).symlink_to(path)
