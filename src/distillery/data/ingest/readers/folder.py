"""Reads a folder of images with captions beside them.

In: a folder. Out: `RawSample`s, by file name. Captions come from `metadata.csv` or
`metadata.jsonl` (columns `file_name` and `text`, as Hugging Face's imagefolder has them) or, where
there is none, from `.txt` files named like their images. An image without a caption gets an empty
one, which curation rejects and counts; a row whose file is missing is counted as failed.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.data.ingest.sample import (
    CAPTION_NAMES,
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    SUCCESS,
    RawSample,
    find_caption,
    find_metadata,
    normalise_caption,
)

_FILE_COLUMN = "file_name"
_TABLES = ("metadata.csv", "metadata.jsonl")


def read_folder(folder: Path) -> Iterator[RawSample]:
    """Images at any depth of `folder`, sorted; with a metadata file, exactly its rows."""
    if not folder.is_dir():
        raise DistilleryError(f"{folder}: not a folder; set ingest.path to a folder of images")
    tables = [folder / name for name in _TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise DistilleryError(f"{folder}: both {' and '.join(_TABLES)}; keep one of them")
    num_samples = 0
    for sample in _from_table(folder, tables[0]) if tables else _from_sidecars(folder):
        num_samples += 1
        yield sample
    if num_samples == 0:
        where = f"{tables[0]}: no rows" if tables else f"{folder}: no images here or below"
        raise DistilleryError(f"{where}; check ingest.path and ingest.source")


def _from_sidecars(folder: Path) -> Iterator[RawSample]:
    images = (p for p in folder.rglob("*") if p.suffix.lstrip(".").lower() in IMAGE_SUFFIXES)
    for image in sorted(p for p in images if p.is_file()):
        sidecar = image.with_suffix(".txt")
        text = sidecar.read_text("utf-8", errors="replace") if sidecar.is_file() else ""
        yield _load(folder, image.relative_to(folder).as_posix(), text, {})


def _from_table(folder: Path, table: Path) -> Iterator[RawSample]:
    rows = list(_read_csv(table) if table.suffix == ".csv" else _read_jsonl(table))
    for row in sorted(rows, key=lambda row: str(row[_FILE_COLUMN])):
        yield _load(folder, str(row[_FILE_COLUMN]), find_caption(row), find_metadata(row))


def _read_csv(table: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**24)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _require_columns(table, 1, reader.fieldnames or [])
            for row in reader:
                if None in row or row[_FILE_COLUMN] in (None, ""):
                    raise DistilleryError(
                        f"{table}:{reader.line_num}: not the columns of line 1; "
                        "quote captions that contain commas"
                    )
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DistilleryError(f"{table}: not valid UTF-8 CSV ({error}); correct it") from None


def _read_jsonl(table: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(table.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DistilleryError(f"{table}:{number}: not valid JSON ({error})") from None
        _require_columns(table, number, row if isinstance(row, dict) else [])
        yield row


def _require_columns(table: Path, line: int, columns: Any) -> None:
    names = [str(name) for name in columns]
    if _FILE_COLUMN not in names or not any(name.lower() in CAPTION_NAMES for name in names):
        raise DistilleryError(
            f"{table}:{line}: needs the columns {_FILE_COLUMN} and text, has "
            f"{', '.join(names) or 'none'}"
        )


def _load(folder: Path, name: str, caption: str, metadata: dict[str, Any]) -> RawSample:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DistilleryError(f"{folder}: file_name {name} lies outside of the folder; correct it")
    image, status = None, SUCCESS
    if not path.is_file():
        status = "file not found"
    elif path.stat().st_size > MAX_IMAGE_BYTES:
        status = f"{path.stat().st_size} bytes is over {MAX_IMAGE_BYTES}"
    else:
        image = path.read_bytes()
    suffix = path.suffix.lstrip(".").lower()
    caption = normalise_caption(caption)
    return RawSample(name, ".", image, suffix, caption, metadata, status=status)
