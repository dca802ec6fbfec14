"""Overrides given to Snakemake, as one params file that every stage can read.

In: the default params file, `--configfile` files and `--config` values. Out: the path to pass on as
`--params`: the default file itself when nothing differs, else a merged file whose name is a hash of
its text. It does not check values; `load_params` does.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.params.load import read_values
from distillery.params.merge import lay_over, typed
from distillery.params.presets import FOLDER

WRITTEN_BY = "# Written by `distillery use "
_USED = re.compile(rf"^{re.escape(WRITTEN_BY)}([^ `]+)", re.MULTILINE)


def effective_params(default: Path, files: Sequence[Path], values: Mapping[str, Any]) -> Path:
    """The params file to run with: `files` and `values` laid over `default`, in this order.

    Raises DistilleryError for a preset over a params.yaml that holds another one: their mixture is
    nobody's wish.
    """
    base, _ = read_values(default)
    merged: Any = base
    for file in map(Path, files):
        _require_no_other_preset(default, file)
        merged = lay_over(merged, read_values(file)[0])
    merged = lay_over(merged, typed(values))
    return default if merged == base else _write(merged)


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
