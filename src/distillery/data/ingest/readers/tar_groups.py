"""Which members of a tar make up one sample.

In: the members of a tar, in any order. Out: `Group`s: an image with its text, JSON and
segmentation. As in webdataset, a sample is what is named alike up to the first dot, and its image
is the one with nothing else before the suffix (`7.jpg`, not `7.depth.png`). Where no image is
named so and several share that beginning (`frame.000.jpg`, `frame.001.jpg`), or several have texts
of their own, a sample is what is named alike up to the suffix.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distillery.core.errors import DamagedError, DistilleryError
from distillery.data.ingest.readers.tar_index import REMEDY, Member
from distillery.data.ingest.sample import (
    SEGMENTATION_SUFFIX,
    is_picture_name,
    shown_name,
    split_suffix,
)

_TEXT_SUFFIXES = ("txt", "caption", "json", "csv", "tsv", "jsonl", "parquet")


@dataclass(frozen=True, slots=True)
class Group:
    """The members of one sample; `image` may turn out to be none, or be None by its name."""

    key: str
    suffix: str
    image: Member | None
    txt: Member | None
    json: Member | None
    segmentation: Member | None
    maps: dict[str, Member]


def group_members(members: Iterable[Member], tar: Path) -> list[Group]:
    """The samples of a tar, in the order of their first members.

    Raises DamagedError naming the member that is there twice, or belongs to several images.
    """
    by_start: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        folder, slash, name = member.name.rpartition("/")
        by_start[folder + slash + name.partition(".")[0]].append(member)
    return [group for start, alike in by_start.items() for group in _split(start, alike, tar)]


def require_texts(groups: Iterable[Group], tar: Path) -> None:
    """Raise DistilleryError where texts or a table lie in a tar, but none of them by a picture."""
    groups = list(groups)
    pictures = [g for g in groups if is_picture_name(g.suffix)]
    others = [m for g in groups if not is_picture_name(g.suffix) for m in (g.txt, g.json, g.image)]
    unread = [m for m in others if m and split_suffix(m.name)[1] in _TEXT_SUFFIXES]
    if pictures and unread and not any(g.txt or g.json for g in pictures):
        raise DistilleryError(
            f"{tar}: {shown_name(unread[0].name)} is read with no picture, and no picture has a "
            "text; name each text like its picture, or unpack the tar and set ingest.source: folder"
        )


def _split(start: str, members: list[Member], tar: Path) -> list[Group]:
    _require_once(members, tar)
    texts = {_stem(m) for m in members if _is_text(m)}
    images = [m for m in members if _is_image(m)]
    plain = [m for m in images if split_suffix(m.name)[0] == start]
    have_own = sum(_stem(m) in texts for m in images) > 1
    if (len(plain) == 1 or len(images) == 1) and not have_own:
        return [_group((plain or images)[0], members, start)]
    if not images:  # those by their bytes, if any
        images = [m for m in members if not _is_text(m)]
        if len(texts) < 2:
            return [_group(images[0] if images else None, members, start)]
    by_stem: dict[str, list[Member]] = defaultdict(list)
    for member in members:  # one without a suffix has a text that is named like all of it
        by_stem[member.name if member.name in texts else _stem(member)].append(member)
    return [
        group
        for stem, alike in by_stem.items()
        for group in _by_stem(stem, alike, [m for m in alike if m in images], tar)
    ]


def _by_stem(stem: str, members: list[Member], images: list[Member], tar: Path) -> list[Group]:
    if texts := [m for m in members if _is_text(m) and not images]:
        raise DamagedError(
            f"{tar}: {shown_name(texts[0].name)} belongs to none of the images that are named "
            f"like it up to the first dot; name each text like its image"
        )
    if len(images) == 1:
        return [_group(images[0], members, stem)]
    return [_group(image, members, image.name) for image in images]


def _group(image: Member | None, members: list[Member], key: str) -> Group:
    by_suffix = {_suffix(m): m for m in members}
    return Group(
        key=shown_name(key.rpartition("/")[2]),
        suffix=split_suffix(image.name)[1] if image else "",
        image=image,
        txt=by_suffix.get("txt") or by_suffix.get("caption"),
        json=by_suffix.get("json"),
        segmentation=by_suffix.get(SEGMENTATION_SUFFIX),
        maps=_maps(key, members),
    )


def _maps(key: str, members: list[Member]) -> dict[str, Member]:
    """Further images of a sample by what stands between its key and their suffix."""
    stems = {split_suffix(m.name)[0]: m for m in members if _is_image(m)}
    named = {stem.removeprefix(f"{key}."): m for stem, m in stems.items() if stem != key}
    return {name: m for name, m in named.items() if "/" not in name and "." not in name}


def _require_once(members: list[Member], tar: Path) -> None:
    names = [m.name for m in members]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DamagedError(f"{tar}: two members are named {shown_name(twice)}; {REMEDY}")


def _suffix(member: Member) -> str:
    is_labels = member.name.lower().endswith(f".{SEGMENTATION_SUFFIX}")
    return SEGMENTATION_SUFFIX if is_labels else split_suffix(member.name)[1]


def _stem(member: Member) -> str:
    if _suffix(member) == SEGMENTATION_SUFFIX:
        return member.name[: -len(SEGMENTATION_SUFFIX) - 1]
    return split_suffix(member.name)[0]


def _is_image(member: Member) -> bool:
    return is_picture_name(_suffix(member))


def _is_text(member: Member) -> bool:
    return _suffix(member) in ("txt", "caption", "json")
