"""Reads the metadata file of a folder of images: csv (also with other separators), jsonl, parquet.

In: a file with the columns `file_name` and `text` (or another name of a caption). Out: its rows, as
they are stored; a line that can't be read, or lacks a column, is an error that names it.
"""

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from distillery.core.errors import DistilleryError
from distillery.data.ingest.readers.rows import open_parquet, rows_of
from distillery.data.ingest.sample import (
    CAPTION_NAMES,
    READ_NAMES,
    is_picture_name,
    shown_name,
    split_suffix,
)
from distillery.data.ingest.text import BadTextError, decode_text
from distillery.data.quotes import Remembered, Rows

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
_SEPARATORS = ",;\t|"
FILE_COLUMN = "file_name"
_MAX_HEAD_CHARS = 2**16
_LINES = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+\Z")


def read_table_rows(table: Path) -> list[dict[str, Any]]:
    """All rows; each has a `file_name` and a column of captions."""
    return list(iter_table_rows(table))


def iter_table_rows(table: Path) -> Iterator[dict[str, Any]]:
    """The rows of `read_table_rows`, one after another."""
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    return readers.get(table.suffix.lower(), _read_csv)(table)


def file_name(row: dict[str, Any]) -> str:
    """The name of a row's file; parts may be separated as Windows does."""
    name = row[FILE_COLUMN]
    text = os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return text.replace("\\", "/")


def _read_csv(table: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**24)
    try:
        text = decode_text(table.read_bytes())
        # StringIO would hold the text once more.
        lines = Remembered(line[0] for line in _LINES.finditer(text))
        # Strict: a quote that is never closed would swallow the rows behind it.
        separator = _separator(text)
        reader = csv.DictReader(lines, delimiter=separator, skipinitialspace=True, strict=True)
        names = reader.fieldnames = [_plain(name) for name in reader.fieldnames or []]
        _require_columns(table, 1, names)
        rows = Rows(separator, len(names), names.index(FILE_COLUMN), is_file_name)
        lines.take()
        for row in reader:
            if None in row or row[FILE_COLUMN] in (None, ""):
                raise DistilleryError(
                    f"{table}:{reader.line_num}: not the columns of line 1; "
                    "quote captions that contain commas"
                )
            rows.require_closed(table, reader.line_num, lines.take())
            yield row
    except (csv.Error, BadTextError) as error:
        raise DistilleryError(f"{table}: not valid UTF-8 CSV ({error}); correct it") from None


def is_file_name(text: str) -> bool:
    """Whether it ends as a picture's name does."""
    return is_picture_name(split_suffix(text)[1])


def _separator(text: str) -> str:
    """What parts the names in the first line, of which one is `file_name`."""
    head = text[:_MAX_HEAD_CHARS].lstrip("\ufeff").splitlines()[:1]
    names = {s: [_plain(n.strip(' "')) for n in "".join(head).split(s)] for s in _SEPARATORS}
    return next((s for s in _SEPARATORS if FILE_COLUMN in names[s]), ",")


def _plain(name: str) -> str:
    """A column's name; that of the files in any case."""
    return FILE_COLUMN if name.strip().lower() == FILE_COLUMN else name.strip()


def _read_jsonl(table: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = decode_text(table.read_bytes()).split("\n")
    except BadTextError as error:
        raise DistilleryError(f"{table}: not valid UTF-8 ({error}); correct it") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DistilleryError(
                f"{table}:{number}: not valid JSON ({error}); write one object a line"
            ) from None
        _require_columns(table, number, row if isinstance(row, dict) else [])
        yield row


def _read_parquet(table: Path) -> Iterator[dict[str, Any]]:
    try:
        with open_parquet(table) as file:
            _require_columns(table, 1, file.schema_arrow.names)
            names = [
                n for n in file.schema_arrow.names if n == FILE_COLUMN or n.lower() in READ_NAMES
            ]
            for batch in file.iter_batches(columns=names):
                yield from rows_of(batch)
    except (OSError, pa.ArrowException) as error:
        raise DistilleryError(f"{table}: not readable ({error}); write it again") from None


def _require_columns(table: Path, line: int, columns: Any) -> None:
    names = [str(name) for name in columns]
    folded = [name.lower() for name in names]
    if twice := [n for n in (FILE_COLUMN, *CAPTION_NAMES) if folded.count(n) > 1]:
        raise DistilleryError(f"{table}:{line}: two columns {twice[0]}; keep one of them")
    if FILE_COLUMN not in names or not any(name.lower() in CAPTION_NAMES for name in names):
        raise DistilleryError(
            f"{table}:{line}: needs the columns {FILE_COLUMN} and text, has "
            f"{shown_name(', '.join(names)) or 'none'}"
        )
