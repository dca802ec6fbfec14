"""Reads img2dataset's webdataset output: tar shards, with or without parquet and stats beside.

In: a tar file or a folder of them. Out: `RawSample`s. A tar that was cut short is an error, also
when the cut lies exactly between two members: the end-of-archive mark is then missing, or the
number of samples differs from what the parquet and stats files say. Pickled and other members are
ignored by name, nothing is unpickled.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.artifacts import read_json
from distillery.core.errors import DamagedError
from distillery.data.ingest.sample import (
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    SEGMENTATION_SUFFIX,
    SUCCESS,
    RawSample,
    find_caption,
    find_metadata,
    list_inputs,
    normalise_caption,
)

_BLOCK_BYTES = 512
_REMEDY = "fetch or write this shard again, or delete its files"
_TEXT_SUFFIXES = ("txt", "json")


@dataclass
class _Group:
    """The members of one sample: consecutive names that are equal up to the first dot."""

    key: str
    folder: Path
    members: dict[str, bytes] = field(default_factory=dict)
    status: str = SUCCESS


def read_webdataset(path: Path) -> Iterator[RawSample]:
    """Samples of all shards, then of each shard's rows that were never downloaded."""
    for tar in list_inputs(path, "tar"):
        yield from read_shard(tar)


def read_shard(tar: Path) -> Iterator[RawSample]:
    """Samples of one shard in order; the parquet file's columns complete the json member's."""
    check_end_of_archive(tar)
    rows = _read_rows(tar)
    num_found = 0
    for group in _stream_groups(tar):
        num_found += 1
        yield _as_sample(group, rows.pop(group.key, {}), tar)
    _check_complete(tar, num_found, rows)
    for key, row in rows.items():
        yield RawSample(
            key, tar.name, None, "", find_caption(row), find_metadata(row),
            status=str(row["status"]),
        )  # fmt: skip


def check_end_of_archive(tar: Path) -> None:
    """Raise DamagedError unless the file ends with the two zero blocks that close every tar."""
    size_bytes = tar.stat().st_size
    with tar.open("rb") as file:
        file.seek(max(size_bytes - 2 * _BLOCK_BYTES, 0))
        tail = file.read()
    if size_bytes % _BLOCK_BYTES or len(tail) < 2 * _BLOCK_BYTES or any(tail):
        raise DamagedError(f"{tar}: cut short, the end-of-archive mark is missing; {_REMEDY}")


def _stream_groups(tar: Path) -> Iterator[_Group]:
    group: _Group | None = None
    try:
        with tarfile.open(tar, mode="r|") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                name = Path(member.name)
                key, _, suffix = name.name.partition(".")
                if group is None or (key, name.parent) != (group.key, group.folder):
                    if group:
                        yield group
                    group = _Group(key, name.parent)
                _add_member(group, suffix.lower(), member, archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DamagedError(f"{tar}: not a readable tar ({error}); {_REMEDY}") from None
    if group:
        yield group


def _add_member(
    group: _Group, suffix: str, member: tarfile.TarInfo, archive: tarfile.TarFile
) -> None:
    if suffix not in (*IMAGE_SUFFIXES, *_TEXT_SUFFIXES, SEGMENTATION_SUFFIX):
        return
    if member.size > MAX_IMAGE_BYTES:
        group.status = f"{suffix} of {member.size} bytes is over {MAX_IMAGE_BYTES}"
        return
    group.members[suffix] = archive.extractfile(member).read()


def _as_sample(group: _Group, row: dict[str, Any], tar: Path) -> RawSample:
    inline = _parse_json(group.members.get("json"))
    merged = {**inline, **{name: value for name, value in row.items() if value is not None}}
    text = group.members.get("txt")
    caption = find_caption(merged) if text is None else _decode_text(text)
    suffix = next((s for s in group.members if s in IMAGE_SUFFIXES), "")
    status = group.status
    if not suffix and status == SUCCESS:
        status = "no image member"
    return RawSample(
        key=group.key,
        source=tar.name,
        image=group.members.get(suffix),
        suffix=suffix,
        caption=normalise_caption(caption),
        metadata=find_metadata(merged),
        segmentation=group.members.get(SEGMENTATION_SUFFIX),
        status=status,
    )


def _parse_json(data: bytes | None) -> dict[str, Any]:
    """The json member's mapping; a broken one costs its scores, as if they were absent."""
    try:
        value = json.loads(data) if data else {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _read_rows(tar: Path) -> dict[str, dict[str, Any]]:
    """Rows of the parquet file beside the tar by key; none where there is no such file."""
    path = tar.with_suffix(".parquet")
    if not path.is_file():
        return {}
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise DamagedError(f"{path}: unreadable ({error}); {_REMEDY}") from None
    return {str(row["key"]): row for row in rows if row.get("key") is not None}


def _check_complete(tar: Path, num_found: int, rows_left: dict[str, dict[str, Any]]) -> None:
    """Compare with the parquet file's and the stats file's counts, where they exist."""
    missing = [key for key, row in rows_left.items() if row.get("status", SUCCESS) == SUCCESS]
    if missing:
        raise DamagedError(
            f"{tar}: cut short, {len(missing)} samples of its .parquet are not in it "
            f"(first: {missing[0]}); {_REMEDY}"
        )
    stats = tar.with_name(f"{tar.stem}_stats.json")
    if stats.is_file():
        expected = read_json(stats, remedy=_REMEDY).get("successes", num_found)
        if expected != num_found:
            raise DamagedError(
                f"{tar}: holds {num_found} samples, {stats.name} says {expected}; {_REMEDY}"
            )
