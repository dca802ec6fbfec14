"""Reads a folder of images with captions beside them.

In: a folder. Out: `RawSample`s, by file name. Captions come from `metadata.csv`, `.jsonl` or
`.parquet` (columns `file_name`, relative to that file's folder, and `text`, as Hugging Face's
imagefolder has them), at any depth, or from `.txt`, `.caption` or `.json` files named like their
images. An image without a caption gets an empty one, which curation rejects and counts; a row whose
file is missing is counted as failed. Links are followed. Files that are left out are named on
standard error.
"""

import itertools
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.data.ingest.readers.folder_names import SIDECARS, find_file, sidecar_of
from distillery.data.ingest.readers.folder_tables import TABLES, file_name, read_table_rows
from distillery.data.ingest.sample import (
    MAX_IMAGE_BYTES,
    PICTURE_SUFFIXES,
    SUCCESS,
    RawSample,
    find_caption,
    find_metadata,
    make_sample,
    picture_format,
    require_files,
    shown_name,
    split_suffix,
    walk_files,
)
from distillery.data.ingest.text import BadTextError, decode_text, normalise_caption, parse_mapping

_UNREAD_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_MAYBE_TEXTS = (*SIDECARS, *_UNREAD_TABLES, ".xlsx", ".xls", ".ods", ".gz", ".zip")
_MAX_KINDS = 6
_BESIDE = (*SIDECARS, *_UNREAD_TABLES, ".md")


def read_folder(folder: Path) -> Iterator[RawSample]:
    """Images at any depth of `folder`, sorted; below a metadata file, exactly its rows.

    The folder is walked several times rather than kept: a path takes half a kilobyte.
    """
    if not folder.is_dir():
        raise DistilleryError(f"{folder}: not a folder; set ingest.path to a folder of images")
    tables = list_metadata(folder)
    _look_through(folder, tables)
    num_samples = 0
    for sample in _all_samples(folder, tables):
        num_samples += 1
        yield sample
    if num_samples == 0:
        where = f"{tables[0]}: no rows" if tables else f"{folder}: no images here or below"
        raise DistilleryError(f"{where}; check ingest.path and ingest.source")


def list_metadata(folder: Path) -> list[Path]:
    """The metadata files at any depth, sorted; DistilleryError where a folder has two."""
    tables = require_files([f for f in walk_files(folder) if f.name.lower() in TABLES])
    for first, second in itertools.pairwise(tables):
        if first.parent == second.parent:
            raise DistilleryError(
                f"{first.parent}: both {first.name} and {second.name}; keep one of them"
            )
    return tables


def holds_pictures(folder: Path) -> bool:
    """Whether a file at any depth is named like a picture."""
    return any(split_suffix(file.name)[1] in PICTURE_SUFFIXES for file in walk_files(folder))


def _look_through(folder: Path, tables: list[Path]) -> None:
    """Say what is no picture and left out; DistilleryError where captions are in no file read."""
    left_out, first, unread, has_texts, has_pictures = Counter(), None, None, False, False
    for file in _not_below(folder, tables):
        suffix = file.suffix.lower()
        if suffix in _MAYBE_TEXTS and (unread is None or suffix in _UNREAD_TABLES):
            unread = file if unread is None or unread.suffix not in _UNREAD_TABLES else unread
        if _is_shown(folder, file):
            has_pictures = True
            has_texts = has_texts or sidecar_of(file) is not None
        elif suffix not in _BESIDE:
            left_out[shown_name(suffix) or "no suffix"] += 1
            first = first or file
    if left_out:
        kinds = ", ".join(f"{kind} {num}" for kind, num in left_out.most_common(_MAX_KINDS))
        print(
            f"ingest: {left_out.total()} files are hidden or no pictures and left out ({kinds}), "
            f"first {shown_name(str(first))}",
            file=sys.stderr,
        )
    if unread and has_pictures and not has_texts:
        raise DistilleryError(
            f"{unread}: not read, and no picture has a text beside it; name a table "
            f"{TABLES[0]} (or .jsonl, .parquet), with columns file_name and text, and a text like "
            "its picture, in one folder"
        )


def _not_below(folder: Path, tables: list[Path]) -> Iterator[Path]:
    """The files that no metadata file is for."""
    listed = {table.parent for table in tables}
    return (f for f in walk_files(folder) if listed.isdisjoint(f.parents))


def _all_samples(folder: Path, tables: list[Path]) -> Iterator[RawSample]:
    # Train comes first: a limit on the samples is not meant to take the test split.
    for table in sorted(tables, key=lambda table: (table.parent.name != "train", table)):
        yield from _from_table(folder, table)
    for file in _not_below(folder, tables):
        if _is_shown(folder, file):
            yield _from_sidecar(folder, file)


def _is_shown(folder: Path, file: Path) -> bool:
    """Whether a file is a picture, by name or bytes, and not hidden."""
    if file.suffix.lower() in _BESIDE or not _is_picture(file):
        return False
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _is_picture(file: Path) -> bool:
    if split_suffix(file.name)[1] in PICTURE_SUFFIXES:
        return True
    try:
        if not file.is_file():  # a pipe would keep its reader waiting
            return False
        with file.open("rb") as opened:
            return picture_format(opened.read(16)) is not None
    except OSError:
        return False


def _from_sidecar(folder: Path, image: Path) -> RawSample:
    def caption() -> str:
        sidecar = sidecar_of(image)
        text = decode_text(_read(sidecar)) if sidecar else ""
        is_json = sidecar is not None and sidecar.suffix.lower() == ".json"
        return find_caption(parse_mapping(text)) if is_json else normalise_caption(text)

    name = image.relative_to(folder).as_posix()
    return make_sample(caption, metadata={}, **_load(image, name))


def _read(sidecar: Path) -> bytes:
    try:
        return sidecar.read_bytes()
    except OSError as error:
        raise BadTextError(f"{sidecar.name} is not readable: {error.strerror}") from None


def _from_table(folder: Path, table: Path) -> Iterator[RawSample]:
    rows = sorted(read_table_rows(table), key=file_name)
    for row in rows:
        yield _from_row(folder, table, row)
    names = (_relative(file_name(row), table.parent) for row in rows)
    _name_unlisted(table, {str(find_file(table.parent, name)) for name in names})


def _from_row(folder: Path, table: Path, row: dict[str, Any]) -> RawSample:
    name = _relative(file_name(row), table.parent)
    if name.startswith(("../", "/")) or name == "..":
        raise DistilleryError(f"{table}: file_name {name} lies outside of the folder; correct it")
    path = find_file(table.parent, name)
    return make_sample(
        lambda: find_caption(row),
        metadata=find_metadata(row),
        **_load(path, path.relative_to(folder).as_posix()),
    )


def _relative(name: str, folder: Path) -> str:
    """A name seen from the folder, also where it was written with the path of the folder."""
    plain = posixpath.normpath(name)
    return plain.removeprefix(f"{folder.absolute().as_posix()}/")


def _name_unlisted(table: Path, listed: set[str]) -> None:
    num, first = 0, ""
    for file in walk_files(table.parent):
        is_listed = file.name.lower() in TABLES or str(file) in listed
        if not is_listed and _is_picture(file):
            num, first = num + 1, first or file.relative_to(table.parent).as_posix()
    if num:
        print(
            f"ingest: {table} does not list {num} pictures, which are left out, first "
            f"{shown_name(first)}",
            file=sys.stderr,
        )


def _load(path: Path, name: str) -> dict[str, Any]:
    image, status = None, SUCCESS
    try:
        num_bytes = os.stat(path).st_size
        if not path.is_file():
            status = "file not found"
        elif num_bytes > MAX_IMAGE_BYTES:
            status = f"{num_bytes} bytes is over {MAX_IMAGE_BYTES}"
        else:
            image = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | ValueError)
        status = "file not found" if missing else f"not readable: {os.strerror(error.errno)}"
    return {
        "key": shown_name(name),
        "source": ".",
        "image": image,
        "suffix": split_suffix(name)[1],
        "status": status,
        "name": split_suffix(name)[0],
    }
