"""Overrides given to Snakemake, as one params file that every stage can read.

In: the default params file, `--configfile` files and `--config` values. Out: checked params, and
the path to pass on as `--params`: the default file itself when nothing differs, else a merged file
whose name is a hash of its text. Problems are named where the user wrote them.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.params.load import check_values
from distillery.params.merge import lay_over, typed
from distillery.params.model import Params
from distillery.params.presets import FOLDER
from distillery.params.read import read_values
from distillery.params.sources import require_source

WRITTEN_BY = "# Written by `distillery use "
_USED = re.compile(rf"^{re.escape(WRITTEN_BY)}([^ `]+)", re.MULTILINE)


def effective_params(
    default: Path, files: Sequence[Path], values: Mapping[str, Any]
) -> tuple[Path, Params]:
    """The params to run with, and their file: `files`, then `values`, laid over `default`.

    Raises DistilleryError, a line for each problem, and for a preset over a params.yaml that holds
    another one: their mixture is nobody's wish.
    """
    base, places = read_values(default)
    merged: Any = base
    for file in map(Path, files):
        _require_no_other_preset(default, file)
        given, given_places = read_values(file)
        merged, places = lay_over(merged, given), {**places, **given_places}
    merged = lay_over(merged, typed(values))
    places.update(dict.fromkeys(_key_paths(values), "--config"))
    params = check_values(merged, places, str(default))
    require_source(params, places)
    return (default if merged == base else _write(merged)), params


def _key_paths(values: Any, start: tuple = ()) -> Iterator[tuple]:
    for name, value in values.items() if isinstance(values, Mapping) else ():
        yield (*start, name)
        yield from _key_paths(value, (*start, name))


def _require_no_other_preset(default: Path, file: Path) -> None:
    used = _USED.search(default.read_text(encoding="utf-8"))
    other = used and used[1] not in ("scenes", file.stem)
    if other and file.resolve().parent == FOLDER.resolve():
        raise DistilleryError(
            f"{file}: differs from the shipped params.yaml, but {default} holds the preset "
            f"{used[1]}; run `distillery use {file.stem}`, or `distillery use scenes` first"
        )


def _write(values: Mapping[str, Any]) -> Path:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    work = Path((values.get("paths") or {}).get("work") or "work")
    path = work / f"params-{name}.yaml"
    if not path.is_file():
        with publish(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return path
