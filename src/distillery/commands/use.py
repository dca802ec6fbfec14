"""`distillery use`: a preset and some values as a complete params.yaml.

In: a preset, `key=value` words, and the shipped params.yaml that presets differ from. Out:
params.yaml, with the comments of the shipped one. A params.yaml that somebody has edited is not
overwritten unless asked.
"""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distillery.commands.amounts import counted
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.params.load import check_values
from distillery.params.merge import annotation_at, lay_over, section_at, typed
from distillery.params.model import Params
from distillery.params.overrides import WRITTEN_BY
from distillery.params.presets import FOLDER, PARAMS_FILE, preset_file, preset_names
from distillery.params.read import read_values
from distillery.params.rewrite import dump, rewrite
from distillery.params.sources import lost_source

SHIPPED = Path("workflow/schemas/params.shipped.yaml")
_NUM_SHOWN = 8


def use(preset: str, settings: Sequence[str] = (), *, force: bool = False) -> str:
    """Write params.yaml for a preset with `settings` (`key=value`); returns what to say of it.

    Raises DistilleryError, and writes nothing, for a preset or key that is not there, a value out
    of range, and a params.yaml with edits unless `force`.
    """
    if not SHIPPED.is_file():
        raise DistilleryError(f"{SHIPPED}: not found; run this in the repository's root")
    file = preset_file(preset)
    values, places = _laid_over(file, settings)
    params = check_values(values, places, str(file))
    before = read_values(PARAMS_FILE)[0] if PARAMS_FILE.is_file() else {}
    if before and not force and not _may_be_replaced(before):
        raise DistilleryError(
            f"{PARAMS_FILE}: has edits of yours, which would be lost; give them as key=value, or "
            "overwrite them by --force"
        )
    with publish(PARAMS_FILE) as partial:
        partial.write_text(_text(file, settings, values), encoding="utf-8")
    if lost := lost_source(params, places):  # no error: it may be on its way
        print(f"distillery: {lost}", file=sys.stderr)
    return _said(" ".join([preset, *settings]), before, values)


def _laid_over(file: Path, settings: Sequence[str]) -> tuple[dict[str, Any], dict[tuple, str]]:
    """The values of a preset with settings, and where each of them stands."""
    values, places = read_values(SHIPPED)
    given, given_places = read_values(file)
    values = lay_over(values, given)
    places.update(given_places)
    for word in settings:
        key, equals, text = word.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise DistilleryError(f"{word}: expected key=value, as in curate.min_side_px=64")
        path = tuple(key.split("."))
        if text.startswith("~/"):  # after = shells leave it as it is
            text = os.path.expanduser(text)
        values = _set(values, path, text, Params)
        for length in range(1, len(path)):
            places.setdefault(path[:length], word)  # a section that only this word names
        places[path] = word
    return values, places


def _set(values: Any, path: Sequence[str], text: str, annotation: Any) -> Any:
    """`values` with a text at a path; also inside a mapping that presets replace as a whole."""
    name, *rest = path
    old = values if isinstance(values, dict) else {}
    field = annotation_at(annotation, name)
    if rest:
        new = _set(old.get(name), rest, text, field)
    else:
        new = lay_over(old.get(name), typed(text, field), section_at(annotation, name))
    return {**old, name: new}


def _may_be_replaced(values: dict[str, Any]) -> bool:
    """Whether params.yaml is as `use` left it, or holds a preset and nothing else."""
    head, body = _split(PARAMS_FILE.read_text(encoding="utf-8"))
    if head.endswith(f"; {_mark(body)}"):
        return True
    shipped = read_values(SHIPPED)[0]
    presets = (read_values(FOLDER / f"{name}.yaml")[0] for name in preset_names())
    return any(values == lay_over(shipped, preset) for preset in presets)


def _text(file: Path, settings: Sequence[str], values: dict[str, Any]) -> str:
    """The shipped file with these values, the preset's introduction and how it was written."""
    shipped = SHIPPED.read_text(encoding="utf-8")
    if values == yaml.safe_load(shipped):
        return shipped
    head, _, body = rewrite(shipped, values).partition("\n\n")
    general = head.split("\n# Preset:")[0]
    lines = file.read_text(encoding="utf-8").splitlines()
    own = [line for line in lines if line.startswith("#") and "yaml-language-server" not in line]
    words = " ".join([file.stem if file.parent == FOLDER else str(file), *settings])
    body = f"\n{body}"
    return "\n".join([general, *own, f"{WRITTEN_BY}{words}`; {_mark(body)}", body])


def _split(text: str) -> tuple[str, str]:
    head, _, body = text.partition("\n\n")
    return head, f"\n{body}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _said(words: str, before: dict[str, Any], values: dict[str, Any]) -> str:
    """What changed, in a few lines."""
    changes = [
        f"  {key}: {dump(old)} -> {dump(new)}" if before else f"  {key}: {dump(new)}"
        for key, old, new in _changes("", before or read_values(SHIPPED)[0], values)
    ]
    if not changes:
        return f"{PARAMS_FILE} holds {words}; no value changed."
    hidden = len(changes) - _NUM_SHOWN
    more = [f"  and {hidden} more"] if hidden > 0 else []
    head = f"{PARAMS_FILE} holds {words}; {counted(len(changes), 'value')} changed:"
    return "\n".join([head, *changes[:_NUM_SHOWN], *more])


def _changes(prefix: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of what differs; entries of variants count one by one."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [(prefix, old, new)]
    keys = list(dict.fromkeys([*old, *new]))
    return [
        change
        for key in keys
        for change in _changes(f"{prefix}.{key}".strip("."), old.get(key), new.get(key))
    ]
