"""Reads img2dataset's webdataset output: tar shards, with or without parquet and stats beside.

In: a tar file or a folder of them. Out: `RawSample`s. A tar that was cut short is an error, also
when the cut lies exactly between two members: the end-of-archive mark is then missing, or the
number of samples differs from what the parquet and stats files say. Pickled and other members are
ignored by name, nothing is unpickled.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from distillery.core.artifacts import read_json
from distillery.core.errors import DamagedError
from distillery.data.ingest.readers.maps import map_bytes, with_maps
from distillery.data.ingest.readers.rows import open_parquet, rows_of
from distillery.data.ingest.readers.tar_groups import Group, group_members, require_texts
from distillery.data.ingest.readers.tar_index import (
    REMEDY,
    Member,
    iter_members,
    list_members,
    read_member,
)
from distillery.data.ingest.sample import (
    MAX_IMAGE_BYTES,
    PICTURE_SUFFIXES,
    READ_NAMES,
    SUCCESS,
    RawSample,
    find_caption,
    find_metadata,
    list_inputs,
    make_sample,
    picture_format,
    require_decoded,
    shown_name,
)
from distillery.data.ingest.text import BadTextError, decode_text, normalise_caption, parse_mapping

_ROW_COLUMNS = {"key", "status", "sha256", "name", *READ_NAMES}
_MAX_TEXT_BYTES = 2**24


def read_webdataset(path: Path, map_columns: Sequence[str] = ()) -> Iterator[RawSample]:
    """Samples of all shards, then of each shard's rows that were never downloaded."""
    for tar in list_inputs(path, "tar"):
        yield from read_shard(tar, map_columns)


def read_shard(tar: Path, map_columns: Collection[str] | None = None) -> Iterator[RawSample]:
    """Samples of one shard in order; the parquet file's columns complete the json member's.

    Maps are the members `<key>.<column>.<suffix of an image>`; `map_columns` None takes all.
    """
    groups = group_members(list_members(tar), tar)
    rows = _read_rows(tar)
    if not rows:
        require_texts(groups, tar)
    _check_complete(tar, groups, rows)
    try:
        with tar.open("rb") as file:
            for group in groups:
                sample = _as_sample(file, group, rows.pop(group.key, {}), tar)
                named = {
                    column: member for column, member in group.maps.items()
                    if map_columns is None or column in map_columns
                }  # fmt: skip
                yield with_maps(sample, {c: _map(file, member) for c, member in named.items()})
    except OSError as error:
        raise DamagedError(f"{tar}: not readable ({error}); {REMEDY}") from None
    for key, row in rows.items():
        yield make_sample(
            lambda row=row: find_caption(row), key=key, source=tar.name, image=None, suffix="",
            metadata=find_metadata(row), status=str(row["status"]),
        )  # fmt: skip


def iter_json(tar: Path) -> Iterator[dict[str, Any]]:
    """The mappings of the JSON members as they come, without those that can't be read."""
    with tar.open("rb") as file:
        for member in iter_members(file):
            if member.name.lower().endswith(".json"):
                with contextlib.suppress(BadTextError):
                    yield _read_json(file, member)


def _as_sample(file: BinaryIO, group: Group, row: dict[str, Any], tar: Path) -> RawSample:
    metadata: dict[str, Any] = {}

    def caption() -> str:
        given = {name: value for name, value in row.items() if value is not None}
        merged = _read_json(file, group.json) | given
        metadata.update(find_metadata(merged))
        require_decoded(merged)
        if group.txt is None:
            return find_caption(merged)
        return normalise_caption(decode_text(_read_text(file, group.txt))) or find_caption(merged)

    status = _problem(file, group)
    image = read_member(file, group.image) if status == SUCCESS else None
    labels = group.segmentation if image else None
    return make_sample(
        caption,
        key=group.key,
        source=tar.name,
        image=image,
        suffix=group.suffix if image else "",
        metadata=metadata,
        segmentation=read_member(file, labels) if labels else None,
        status=status,
        sha256=row.get("sha256"),
        name=str(row.get("name") or group.key),
    )


def _map(file: BinaryIO, member: Member) -> bytes | None:
    is_sound = not member.problem and member.num_bytes <= MAX_IMAGE_BYTES
    return map_bytes(read_member(file, member)) if is_sound else None


def _problem(file: BinaryIO, group: Group) -> str:
    """Why the image of a group can't be read, or SUCCESS."""
    if group.image is None or not _is_picture(file, group):
        return "no image member"
    if group.image.problem:
        return group.image.problem
    for member in (group.image, group.segmentation):
        if member and member.num_bytes > MAX_IMAGE_BYTES:
            return (
                f"{shown_name(member.name)} of {member.num_bytes} bytes is over {MAX_IMAGE_BYTES}"
            )
    return SUCCESS


def _is_picture(file: BinaryIO, group: Group) -> bool:
    """By its name, else by its bytes."""
    if group.suffix in PICTURE_SUFFIXES or group.image.problem:
        return True
    head = replace(group.image, num_bytes=min(group.image.num_bytes, 16))
    return picture_format(read_member(file, head)) is not None


def _read_text(file: BinaryIO, member: Member) -> bytes:
    if member.problem or member.num_bytes > _MAX_TEXT_BYTES:
        raise BadTextError(member.problem or f"text of {member.num_bytes} bytes")
    return read_member(file, member)


def _read_json(file: BinaryIO, member: Member | None) -> dict[str, Any]:
    """The json member's mapping. A broken one may hide a score or caption: BadTextError."""
    if member is None:
        return {}
    try:
        return parse_mapping(decode_text(_read_text(file, member)))
    except BadTextError as error:
        raise BadTextError(f"json member unreadable ({error})") from None


def _read_rows(tar: Path) -> dict[str, dict[str, Any]]:
    """Rows of the parquet file beside the tar by key; none where there is no such file."""
    path = tar.with_suffix(".parquet")
    if not path.is_file():
        return {}
    try:
        with open_parquet(path) as file:
            names = [n for n in file.schema_arrow.names if n.lower() in _ROW_COLUMNS]
            batches = file.iter_batches(columns=names)
            rows = [row for batch in batches for row in rows_of(batch)]
    except (OSError, pa.ArrowException) as error:
        raise DamagedError(f"{path}: unreadable ({error}); {REMEDY}") from None
    return {str(row["key"]): row for row in rows if row.get("key") is not None}


def _check_complete(tar: Path, groups: list[Group], rows: dict[str, dict[str, Any]]) -> None:
    """Compare with the parquet file's and the stats file's counts, where they exist."""
    keys = {group.key for group in groups}
    missing = [k for k, r in rows.items() if r.get("status", SUCCESS) == SUCCESS and k not in keys]
    if missing:
        raise DamagedError(
            f"{tar}: cut short, {len(missing)} samples of its .parquet are not in it "
            f"(first: {missing[0]}); {REMEDY}"
        )
    stats = tar.with_name(f"{tar.stem}_stats.json")
    if stats.is_file():
        expected = read_json(stats, remedy=REMEDY).get("successes", len(groups))
        if expected != len(groups):
            raise DamagedError(
                f"{tar}: holds {len(groups)} samples, {stats.name} says {expected}; {REMEDY}"
            )
