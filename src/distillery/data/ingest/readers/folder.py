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
    shown_name,
    split_suffix,
    walk_files,
)
from distillery.data.ingest.text import decode_text, normalise_caption, parse_mapping

_UNREAD_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_MAX_KINDS = 6
_BESIDE = (*SIDECARS, *_UNREAD_TABLES, ".md")


def read_folder(folder: Path) -> Iterator[RawSample]:
    """Images at any depth of `folder`, sorted; below a metadata file, exactly its rows."""
    if not folder.is_dir():
        raise DistilleryError(f"{folder}: not a folder; set ingest.path to a folder of images")
    files = sorted(walk_files(folder))
    tables = _tables(files)
    free = [file for file in files if not _is_below(file, tables)]
    pictures = _pictures(folder, free)
    if pictures:
        _require_captions(free)
    num_samples = 0
    for sample in _all_samples(folder, tables, pictures):
        num_samples += 1
        yield sample
    if num_samples == 0:
        where = f"{tables[0]}: no rows" if tables else f"{folder}: no images here or below"
        raise DistilleryError(f"{where}; check ingest.path and ingest.source")


def list_metadata(folder: Path) -> list[Path]:
    """The metadata files at any depth, sorted; DistilleryError where a folder has two."""
    return _tables(sorted(walk_files(folder)))


def holds_pictures(folder: Path) -> bool:
    """Whether a file at any depth is named like a picture."""
    return any(split_suffix(file.name)[1] in PICTURE_SUFFIXES for file in walk_files(folder))


def _require_captions(files: list[Path]) -> None:
    """Raise DistilleryError where the captions can only lie in a table that is not read."""
    unread = [file for file in files if file.suffix.lower() in _UNREAD_TABLES]
    if unread and not any(file.suffix.lower() in SIDECARS for file in files):
        raise DistilleryError(
            f"{unread[0]}: not read, and no picture has a text beside it; name the table "
            f"{TABLES[0]} (or .jsonl, .parquet), with columns file_name and text"
        )


def _tables(files: list[Path]) -> list[Path]:
    tables = [file for file in files if file.name.lower() in TABLES]
    for first, second in itertools.pairwise(tables):
        if first.parent == second.parent:
            raise DistilleryError(
                f"{first.parent}: both {first.name} and {second.name}; keep one of them"
            )
    return tables


def _is_below(file: Path, tables: list[Path]) -> bool:
    return any(table.parent in file.parents for table in tables)


def _all_samples(folder: Path, tables: list[Path], free: list[Path]) -> Iterator[RawSample]:
    # Train comes first: a limit on the samples is not meant to take the test split.
    for table in sorted(tables, key=lambda table: (table.parent.name != "train", table)):
        yield from _from_table(folder, table)
    for image in free:
        yield _from_sidecar(folder, image)


def _pictures(folder: Path, files: list[Path]) -> list[Path]:
    """Files that are pictures by name or bytes; what else lies there is named once."""
    others = [f for f in files if f.suffix.lower() not in _BESIDE]
    pictures = [f for f in others if not _is_hidden(f.relative_to(folder)) and _is_picture(f)]
    if left_out := sorted(set(others) - set(pictures)):
        kinds = Counter(shown_name(file.suffix.lower()) or "no suffix" for file in left_out)
        listed = ", ".join(f"{kind} {num}" for kind, num in kinds.most_common(_MAX_KINDS))
        print(
            f"ingest: {len(left_out)} files are hidden or no pictures and left out ({listed}), "
            f"first {shown_name(str(left_out[0]))}",
            file=sys.stderr,
        )
    return pictures


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


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
        text = decode_text(sidecar.read_bytes()) if sidecar else ""
        is_json = sidecar is not None and sidecar.suffix.lower() == ".json"
        return find_caption(parse_mapping(text)) if is_json else normalise_caption(text)

    name = image.relative_to(folder).as_posix()
    return make_sample(caption, metadata={}, **_load(image, name))


def _from_table(folder: Path, table: Path) -> Iterator[RawSample]:
    rows = sorted(read_table_rows(table), key=file_name)
    for row in rows:
        yield _from_row(folder, table, row)
    names = (_relative(file_name(row), table.parent) for row in rows)
    _name_unlisted(table, {find_file(table.parent, name) for name in names})


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


def _name_unlisted(table: Path, listed: set[Path]) -> None:
    files = (f for f in sorted(walk_files(table.parent)) if f.name.lower() not in TABLES)
    if unlisted := [f for f in files if f not in listed and _is_picture(f)]:
        first = unlisted[0].relative_to(table.parent).as_posix()
        print(
            f"ingest: {table} does not list {len(unlisted)} pictures, which are left out, first "
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
