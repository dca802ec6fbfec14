"""One image with its caption as a source has it, and how sources spell their columns and files.

In: a row of whatever names and types. Out: caption and metadata under this project's names. The
formats themselves are read by `readers`.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from distillery.core.errors import DistilleryError
from distillery.data.ingest.text import (
    BadTextError,
    Undecodable,
    as_text,
    normalise_caption,
    on_one_line,
)

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
# What pictures are called besides; which of them can be decoded, the bytes say.
PICTURE_SUFFIXES = (
    *IMAGE_SUFFIXES, "jfif", "jpe", "jif", "jfi", "pjpeg", "pjp", "mpo", "apng", "dib", "heic",
    "heif", "jxl", "jp2",
)  # fmt: skip
_MAGIC = tuple(
    (suffix, re.compile(pattern, re.DOTALL))
    for suffix, pattern in (
        ("jpg", rb"\xff\xd8\xff"),
        ("png", rb"\x89PNG\r\n\x1a\n"),
        ("webp", rb"RIFF....WEBP"),
        ("gif", rb"GIF8[79]a"),
        ("tif", rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
        ("avif", rb"....ftypavi[fs]"),
        ("bmp", rb"BM.{8}"),
    )
)
_KEPT_BESIDE = {
    "__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "paxheader",
    "$recycle.bin", "system volume information", ".directory", ".picasa.ini", "icon\r",
    ".trashes", ".spotlight-v100", ".fseventsd", "lost+found", ".thumbnails", "zbthumbnail.info",
}  # fmt: skip
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
SEGMENTATION_SUFFIX = "seg.png"
MAX_IMAGE_BYTES = 2**28

CAPTION_NAMES = ("caption", "text", "prompt", "title")
SCORE_NAMES = ("similarity", "punsafe", "pwatermark", "aesthetic")
COLUMN_ALIASES = {
    "url": ("url",),
    "similarity": ("similarity", "clip_similarity", "clip_similarity_vitb32"),
    "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark", "watermark_score"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    "planted": ("planted",),
}
# The names above in lower case, of all columns that are read beside the caption.
METADATA_NAMES = tuple(alias for aliases in COLUMN_ALIASES.values() for alias in aliases)
READ_NAMES = {*CAPTION_NAMES, *METADATA_NAMES}
SUCCESS = "success"
FAILED_TO_DOWNLOAD = "failed_to_download"  # begins img2dataset's status, and ours


@dataclass(frozen=True)
class RawSample:
    """One image as it is. `image` is None where there are no bytes; `status` then says why.

    `key` names it within the file `source`; `sha256` is what the source has recorded of its bytes.
    `maps` are encoded condition maps by their column, `name` is the file's, without suffix.
    """

    key: str
    source: str
    image: bytes | None
    suffix: str
    caption: str
    metadata: dict[str, Any] = field(default_factory=dict)
    segmentation: bytes | None = None
    status: str = SUCCESS
    sha256: str | None = None
    maps: dict[str, bytes] = field(default_factory=dict)
    name: str | None = None


def list_inputs(path: Path, suffix: str) -> list[Path]:
    """`path` itself if it is a file, else the files with `suffix` below it, sorted.

    Raises DistilleryError where there are none, for a packed one among tars and for a pipe.
    """
    if path.is_file():
        return [path]
    below = list(walk_files(path))
    if packed := [p for p in below if suffix == "tar" and p.name.lower().endswith(_PACKED)]:
        raise DistilleryError(f"{packed[0]}: packed; unpack it to a plain .tar, or move it away")
    files = [p for p in below if p.suffix.lower() == f".{suffix}"]
    if not files:
        raise DistilleryError(f"{path}: no .{suffix} file here or below; check ingest.path")
    return require_files(files)


def require_files(paths: list[Path]) -> list[Path]:
    """The paths; DistilleryError for one that is a pipe, a device or a link to nothing."""
    for path in paths:
        if not path.is_file():
            raise DistilleryError(f"{path}: no file that can be read; move it away")
    return paths


def walk_files(folder: Path) -> Iterator[Path]:
    """Files at any depth, sorted, also behind links, a folder once; no companions (`is_companion`).

    The names of one folder are in memory at a time, and of those above it. Raises DistilleryError
    naming a folder that can't be read.
    """
    seen = {os.path.realpath(folder)}
    open_folders = [_entries(folder)]
    while open_folders:
        if (entry := next(open_folders[-1], None)) is None:
            open_folders.pop()
        elif not entry.is_dir:
            yield entry.path
        elif (real := os.path.realpath(entry.path)) not in seen:
            seen.add(real)
            open_folders.append(_entries(entry.path))


class _Entry(NamedTuple):
    path: Path
    is_dir: bool


def _entries(folder: Path) -> Iterator[_Entry]:
    try:
        with os.scandir(folder) as entries:
            names = sorted((e.name, _is_dir(e)) for e in entries if not is_companion(e.name))
    except OSError as error:
        raise DistilleryError(
            f"{folder}: {error.strerror}; make it readable, or move it away"
        ) from None
    return (_Entry(folder / name, is_dir) for name, is_dir in names)


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_companion(name: str) -> bool:
    """Whether a file is what systems keep beside others: a Mac's `._name`, `Thumbs.db`, ..."""
    path = PurePosixPath(name)
    return path.name.startswith("._") or not _KEPT_BESIDE.isdisjoint(map(str.lower, path.parts))


def split_suffix(name: str) -> tuple[str, str]:
    """(`a/b.c`, `jpg`) of `a/b.c.JPG`; the suffix is empty where the last part has no dot."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    return (folder + slash + stem, suffix.lower()) if dot and stem else (name, "")


def is_picture_name(suffix: str) -> bool:
    """Whether a suffix is a picture's, also with what a URL or download adds: `jpg?w=64`."""
    return re.split(r"[^a-z0-9]", suffix, maxsplit=1)[0] in PICTURE_SUFFIXES


def picture_format(head: bytes) -> str | None:
    """The suffix of the format that the first 16 bytes of a file announce, or None."""
    return next((suffix for suffix, magic in _MAGIC if magic.match(head)), None)


def shown_name(name: str) -> str:
    """A file's name as text; what is no UTF-8 is escaped: `caf\\xe9.jpg`."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which JSON can hold
        return name.encode("utf-8", "backslashreplace").decode()


def find_caption(row: Mapping[str, Any]) -> str:
    """The caption among a row's columns, whatever its spelling (`caption`, `TEXT`, ...).

    Raises BadTextError where it is none, or another value of the row could not be decoded.
    """
    require_decoded(row)
    return normalise_caption(_lookup(row, CAPTION_NAMES))


def require_decoded(row: Mapping[str, Any]) -> None:
    """Raise BadTextError where a value is damaged: a URL or label must not get lost either."""
    if damaged := [name for name, value in row.items() if isinstance(value, Undecodable)]:
        raise BadTextError(f"column {damaged[0]} is no UTF-8")


def find_url(row: Mapping[str, Any]) -> Any:
    """What stands in a row's URL column, unchanged."""
    return _lookup(row, COLUMN_ALIASES["url"])


def find_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """URL, scores (floats; absent or NaN left out) and planted label of a row."""
    metadata = {name: _lookup(row, aliases) for name, aliases in COLUMN_ALIASES.items()}
    for name in SCORE_NAMES:
        metadata[name] = _score(metadata[name])
    for name in ("url", "planted"):
        metadata[name] = _text_or_none(metadata[name])
    return {name: value for name, value in metadata.items() if value is not None}


def _text_or_none(value: Any) -> str | None:
    try:
        return on_one_line(as_text(value)) or None
    except BadTextError:
        return None


def make_sample(caption: Callable[[], str], **fields: Any) -> RawSample:
    """A sample whose caption may turn out to be no text: then it is a failed one that says so."""
    try:
        return RawSample(caption=caption(), **fields)
    except BadTextError as error:
        failed = {"image": None, "suffix": "", "segmentation": None, "maps": {}}
        return RawSample(caption="", **{**fields, **failed, "status": f"caption: {error}"})


def _lookup(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    folded = {str(column).lower(): value for column, value in row.items()}
    return next((folded[name] for name in names if folded.get(name) is not None), None)


def _score(value: Any) -> float | None:
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
