"""Artefacts on disk: manifests and their hashes.

In: a folder or file that a stage has just written. Out: the same with a `manifest.json` that says
what it is made of. This module knows nothing of stages or params; `publishing` puts them in place.

A manifest holds two hashes. `fingerprint` covers the recipe: contents of the inputs, the params
that were read, code, schema and library versions. `content` covers the bytes that came out. What
varies between runs of one recipe (time, host, date, absolute paths) is never in it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.core.errors import DamagedError, DistilleryError
from distillery.core.publishing import publish

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_IGNORED = {MANIFEST, ".snakemake_timestamp", ".gitignore"}


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_json(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[str]:
    """Relative POSIX names of all payload files below `folder`, sorted."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(n for n in names if Path(n).name not in _IGNORED and "__pycache__" not in n)


def hash_files(path: Path) -> dict[str, str]:
    """sha256 of every payload file: {relative name: hex}; of a single file, {its name: hex}."""
    if path.is_file():
        return {path.name: hash_file(path)}
    return {name: hash_file(path / name) for name in list_files(path)}


def write_json(path: Path, value: Any) -> None:
    """Write readable, deterministic JSON (sorted keys, newline at the end), atomically."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    with publish(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, remedy: str = "rerun the stage that makes it") -> dict[str, Any]:
    """The object in a JSON file; where there is none, a DistilleryError names file and remedy."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DistilleryError(f"{path}: not found; {remedy}") from None
    except OSError as error:
        raise DistilleryError(f"{path}: {error.strerror}; {remedy}") from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise DamagedError(f"{path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(values, dict):
        raise DamagedError(f"{path}: no mapping; {remedy}")
    return values


def content_of(path: Path) -> str:
    """The content hash of an artefact, of a folder of artefacts, or of plain files.

    An artefact's is read from its manifest; a folder without manifest that holds artefacts at any
    depth combines theirs; anything else is hashed byte by byte.
    """
    if (path / MANIFEST).is_file():
        return read_manifest(path)["content"]
    if path.is_dir() and (children := find_artifacts(path)):
        return hash_json({c.relative_to(path).as_posix(): content_of(c) for c in children})
    if not path.exists():
        raise DistilleryError(f"{path}: not found; run the stage that makes it first")
    return hash_json(hash_files(path))


def require_outside(place: Path) -> None:
    """Raise DistilleryError for a place in an artefact, which its stage replaces as a whole."""
    whole = place.resolve()
    for folder in (whole, *whole.parents):
        if (folder / MANIFEST).is_file():
            raise DistilleryError(
                f"{place}: lies in {folder}, which its stage checks and replaces as a whole; "
                "give a place outside"
            )


def find_artifacts(folder: Path) -> list[Path]:
    """Folders with a manifest at or below `folder`, sorted; an artefact is not searched inside."""
    return sorted(_artifacts(folder, (folder.resolve(),)))


def _artifacts(folder: Path, above: tuple[Path, ...]) -> list[Path]:
    """Those at or below `folder`; not through a link to what it lies in, `above`."""
    if (folder / MANIFEST).is_file():
        return [folder]
    found = []
    for child in folder.iterdir():
        if child.is_dir() and not child.name.startswith("."):
            real = child.resolve()
            if not any(one.is_relative_to(real) for one in above):
                found += _artifacts(child, (*above, real))
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the artefact at folder `path`."""
    manifest = read_json(path / MANIFEST)
    if manifest.get("schema") != SCHEMA_VERSION:
        raise DistilleryError(
            f"{path / MANIFEST}: schema {manifest.get('schema')}, this version reads "
            f"{SCHEMA_VERSION}; rerun the stage that makes it"
        )
    if manifest.pop("sha256", None) != hash_json(manifest):
        raise DamagedError(
            f"{path / MANIFEST}: damaged, or of an older version; delete {path} and run again"
        )
    return manifest


def made_with(folder: Path) -> dict[str, str]:
    """Versions of the libraries that the artefacts at or below `folder` were made with."""
    versions: dict[str, str] = {}
    for artifact in find_artifacts(folder) if folder.is_dir() else []:
        versions |= read_manifest(artifact)["recipe"].get("libraries", {})
    return versions


def write_manifest(folder: Path, label: str, recipe: Mapping[str, Any], ancestors: dict) -> None:
    """Hash the payload of `folder` and write its manifest.

    `label` names the artefact (`curate/0`), `recipe` is what `fingerprint` covers, `ancestors`
    maps the labels of everything it was made from to their content hashes.
    """
    files = hash_files(folder)
    manifest = {
        "schema": SCHEMA_VERSION,
        "label": label,
        "fingerprint": hash_json(recipe),
        "content": hash_json(files),
        "recipe": recipe,
        "ancestors": ancestors,
        "files": files,
    }
    write_json(folder / MANIFEST, {**manifest, "sha256": hash_json(manifest)})


def merge_ancestors(inputs: Mapping[str, Path]) -> dict[str, str]:
    """Labels and contents of everything the inputs were made from, and of the inputs themselves.

    Raises DistilleryError when two inputs were made from different versions of one artefact, e.g.
    a cache of one teacher with a student of another.
    """
    merged: dict[str, str] = {}
    origin: dict[str, Path] = {}
    for path in inputs.values():
        for artifact in find_artifacts(path) if path.is_dir() else []:
            manifest = read_manifest(artifact)
            own = {**manifest["ancestors"], manifest["label"]: manifest["content"]}
            for label, content in own.items():
                if merged.setdefault(label, content) != content:
                    raise DistilleryError(
                        f"{artifact}: made from {label} {content[:8]}, but {origin[label]} from "
                        f"{label} {merged[label][:8]}; rerun whichever is out of date"
                    )
                origin.setdefault(label, artifact)
    return merged


def verify(path: Path) -> list[str]:
    """Check every hash below `path`; return one line per damaged, missing or unknown file."""
    if not path.exists():
        raise DistilleryError(f"{path}: not found; give a folder that a stage has written")
    artifacts = find_artifacts(path) if path.is_dir() else []
    if not artifacts:
        raise DistilleryError(f"{path}: no {MANIFEST} here or below; nothing to verify against")
    return [problem for artifact in artifacts for problem in _verify_one(artifact)]


def _verify_one(folder: Path) -> list[str]:
    expected = read_manifest(folder)["files"]
    present = set(list_files(folder))
    problems = [f"{folder / name}: missing" for name in sorted(set(expected) - present)]
    problems += [
        f"{folder / name}: not in the manifest" for name in sorted(present - set(expected))
    ]
    for name in sorted(present & set(expected)):
        if hash_file(folder / name) != expected[name]:
            problems.append(f"{folder / name}: bytes do not match the recorded sha256")
    return problems
