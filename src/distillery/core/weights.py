"""Networks run with the weights that their makers wrote, or not at all.

In: a folder or file that is about to be loaded; what a library says of the names it found. Out:
nothing, or an error of one line. Files of an artefact are compared with the sha256 in its manifest;
one that was found good within a day is not read again while size, times and inode stay, neither in
this process nor, after `remember_in`, in the next one. Folders without a manifest have no record.
Nothing that a stage makes depends on this module.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distillery.core.artifacts import MANIFEST, hash_file, hash_json, write_json
from distillery.core.errors import DamagedError, DistilleryError

__computes__ = False  # it lets weights pass, or not

_READ = (".json", ".safetensors", ".txt")
_MAX_LEVELS = 3  # of folders between a network and its artefact's manifest
_SECONDS_GOOD = 24 * 3600
_MIN_REMEMBERED_BYTES = 2**20  # smaller files are read again
_known: dict[str, list[Any]] = {}
_memory: list[Path] = []


def remember_in(folder: Path) -> None:
    """Keep what was found good in this folder, too; it is made when there is something to keep."""
    _memory[:] = [folder]


def require_recorded(path: Path) -> None:
    """Raise DamagedError where a file, or one lying in a folder, is not as its manifest has it.

    Reads what libraries read: JSON, text and safetensors, at the speed of the disk.
    """
    artifact, manifest = _find_manifest(path)
    if artifact is None:
        return
    if manifest.pop("sha256", None) != hash_json(manifest):
        raise DamagedError(f"{artifact / MANIFEST}: damaged; {_remedy(artifact)}")
    for name, recorded in manifest["files"].items():
        file = artifact / name
        if path not in (file, file.parent) or file.suffix not in _READ:
            continue
        if not file.is_file():
            raise DamagedError(f"{file}: missing; {_remedy(artifact)}")
        if _hash_once(file) != recorded:
            raise DamagedError(
                f"{file}: damaged, its bytes are not those that {manifest.get('label')} wrote; "
                f"{_remedy(artifact)}"
            )


def _remedy(artifact: Path) -> str:
    return f"get it again, or delete {artifact} and run again, which makes it anew"


def _find_manifest(path: Path) -> tuple[Path | None, dict[str, Any]]:
    """The artefact that a network belongs to; other programs' JSON of that name does not count."""
    for folder in [path, *list(path.absolute().parents)[:_MAX_LEVELS]]:
        file = folder / MANIFEST
        if not file.is_file():
            continue
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise DamagedError(
                f"{file}: no JSON that can be read ({error}); if no stage wrote it, move it away, "
                f"else {_remedy(folder)}"
            ) from error
        if isinstance(manifest, dict) and (
            "ancestors" in manifest or isinstance(manifest.get("files"), dict)
        ):
            return folder, manifest
    return None, {}


def _hash_once(file: Path) -> str:
    """sha256 of a file that was not hashed since it last changed."""
    state = os.stat(file)
    stamp = [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    key = hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:32]
    for known in _recall(key, state.st_size):
        if known[:-2] == stamp and 0 <= time.time() - known[-2] < _SECONDS_GOOD:
            return known[-1]
    digest = hash_file(file)
    _known[key] = [*stamp, time.time(), digest]
    if state.st_size >= _MIN_REMEMBERED_BYTES:
        _keep(key)
    return digest


def _recall(key: str, size: int) -> Iterator[list[Any]]:
    if key in _known:
        yield _known[key]
    for folder in _memory if size >= _MIN_REMEMBERED_BYTES else []:
        with contextlib.suppress(OSError, ValueError):
            yield list(json.loads((folder / key).read_text()))


def _keep(key: str) -> None:
    """One file a network's file, so that stages that run at once do not wait for each other."""
    for folder in _memory:
        with contextlib.suppress(DistilleryError, OSError):  # no room: it is read again next time
            write_json(folder / key, _known[key])


def require_matched(place: Path | str, info: Mapping[str, Any], *, may_hold_more: bool) -> None:
    """Raise DistilleryError where a library filled tensors at random, or left some over.

    `info` is its loading info: `missing_keys`, `unexpected_keys`.
    """
    for what in ("missing",) if may_hold_more else ("missing", "unexpected"):
        if names := sorted(info[f"{what}_keys"]):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise DistilleryError(
                f"{place}: {len(names)} tensors are {what}: {shown}; weights and config.json do "
                "not belong together, save the model again"
            )


def require_numbers(state: Mapping[str, Any], place: Path) -> None:
    """Raise DamagedError for a tensor with NaN or infinite values."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise DamagedError(f"{place}: {name} holds NaN or infinite values; get it again")
