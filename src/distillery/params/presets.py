"""Presets: files with the values that differ from params.yaml.

In: the file or the name of a preset. Out: complete values, or a checked `Params`. A file that lacks
sections is laid over the params.yaml beside it, by the rule of `merge`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.params.load import check_values
from distillery.params.merge import lay_over
from distillery.params.model import Params
from distillery.params.read import read_values

FOLDER = Path("presets")
PARAMS_FILE = Path("params.yaml")


def load_preset(path: Path, base: Path = PARAMS_FILE) -> Params:
    """Read and check a params file; a partial one, such as a preset, over the file `base`.

    Raises DistilleryError with one line per problem, as `load_params` does.
    """
    given, places = read_values(path)
    values, base_places = ({}, {}) if is_complete(given) else read_values(base)
    return check_values(lay_over(values, given), {**base_places, **places}, str(path))


def is_complete(values: Mapping[str, Any]) -> bool:
    """Whether a params file holds every section and needs no other file."""
    return set(Params.model_fields) <= set(values)


def preset_file(name: str, folder: Path = FOLDER) -> Path:
    """The file of a preset: a name in presets/ or a path; raises DistilleryError if neither is."""
    shipped = folder / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    raise DistilleryError(
        f"{name}: no such preset; give a file, or one of {', '.join(preset_names(folder))}"
    )


def preset_names(folder: Path = FOLDER) -> list[str]:
    """The shipped presets."""
    return sorted(path.stem for path in folder.glob("*.yaml"))
