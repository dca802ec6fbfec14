"""One image with its caption as a source has it, and how sources spell their columns.

In: a row of whatever names and types. Out: caption and metadata under this project's names. The
formats themselves are read by `readers_tar`, `readers_parquet` and `readers_folder`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
SEGMENTATION_SUFFIX = "seg.png"
MAX_IMAGE_BYTES = 2**28

CAPTION_NAMES = ("caption", "text", "prompt", "title")
SCORE_NAMES = ("similarity", "punsafe", "pwatermark", "aesthetic")
_ALIASES = {
    "url": ("url",),
    "similarity": ("similarity", "clip_similarity", "clip_similarity_vitb32"),
    "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark", "watermark_score"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    "planted": ("planted",),
}
# The names above in lower case, of all columns that are read beside the caption.
METADATA_NAMES = tuple(alias for aliases in _ALIASES.values() for alias in aliases)
SUCCESS = "success"
FAILED_TO_DOWNLOAD = "failed_to_download"  # begins img2dataset's status, and ours


@dataclass(frozen=True)
class RawSample:
    """One image as found. `image` is None where there are no bytes; `status` then says why.

    `key` names it within the file `source`.
    """

    key: str
    source: str
    image: bytes | None
    suffix: str
    caption: str
    metadata: dict[str, Any] = field(default_factory=dict)
    segmentation: bytes | None = None
    status: str = SUCCESS


def list_inputs(path: Path, suffix: str) -> list[Path]:
    """`path` itself if it is a file, else the files with `suffix` below it, sorted."""
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob(f"*.{suffix}") if p.is_file())
    if not found:
        raise DistilleryError(f"{path}: no .{suffix} file here or below; check ingest.path")
    return found


def normalise_caption(text: Any) -> str:
    """One line, single blanks: tabs, newlines and other control characters become blanks."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(printable.split())


def find_caption(row: Mapping[str, Any]) -> str:
    """The caption among a row's columns, whatever its spelling (`caption`, `TEXT`, ...)."""
    return normalise_caption(_lookup(row, CAPTION_NAMES))


def find_url(row: Mapping[str, Any]) -> Any:
    """What stands in a row's URL column, unchanged."""
    return _lookup(row, _ALIASES["url"])


def find_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """URL, scores (floats; absent or NaN left out) and planted label of a row."""
    found = {name: _lookup(row, aliases) for name, aliases in _ALIASES.items()}
    for name in SCORE_NAMES:
        found[name] = _score(found[name])
    for name in ("url", "planted"):
        found[name] = normalise_caption(found[name]) or None
    return {name: value for name, value in found.items() if value is not None}


def _lookup(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    folded = {str(column).lower(): value for column, value in row.items()}
    return next((folded[name] for name in names if folded.get(name) is not None), None)


def _score(value: Any) -> float | None:
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
