"""The user's own condition maps: from a column of the source, or from a folder of image files.

In: `extract_conditions.kinds`, curated rows. Out: a map as large as its image, or the reason why a
record is left out of this kind. Neither numpy nor OpenCV is imported before a map is read. Not
here: making maps, storing them (`annotate`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.core.artifacts import hash_json
from distillery.core.errors import DistilleryError
from distillery.data.ingest.sample import walk_files

if TYPE_CHECKING:
    import numpy as np

RESIZES = ("nearest", "area")
MISSING, SIZE, UNREADABLE = "missing", "size", "unreadable"
_SEPARATORS = re.compile(r"[-_. ]+")
SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp")


class LeftOut(Exception):  # noqa: N818 (no error: a record without a map of this kind)
    """Why a record has no map of a kind: `reason` is counted, the message is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def parse_place(text: Any) -> tuple[str, str] | None:
    """("column", name) or ("folder", path) of `from: column NAME`; None for anything else."""
    words = text.split(maxsplit=1) if isinstance(text, str) else []
    if len(words) != 2 or words[0] not in ("column", "folder"):
        return None
    return words[0], words[1].strip()


def own_places(kinds: Collection[str]) -> dict[str, tuple[str, str]]:
    """By kind where the user's own maps are, of `extract_conditions.kinds`."""
    given = kinds.items() if isinstance(kinds, Mapping) else ()
    return {kind: parse_place(source["from"]) for kind, source in given if source is not None}


def open_own(kinds: Collection[str]) -> dict[str, OwnMaps]:
    """By kind what reads the user's own maps; DistilleryError for a folder that can't be used."""
    found = {}
    for kind, (where, name) in own_places(kinds).items():
        resize = kinds[kind].get("resize")
        found[kind] = OwnMaps(kind, None if where == "folder" else name,
                              Path(name) if where == "folder" else None, resize)  # fmt: skip
        _ = found[kind].files
    return found


@dataclass(frozen=True)
class OwnMaps:
    """Maps of one kind in a column or in a folder; `resize` None refuses another size."""

    kind: str
    column: str | None
    folder: Path | None
    resize: str | None

    @cached_property
    def files(self) -> dict[str, Path]:
        """The folder's image files by their path below it, without suffix."""
        if self.folder is None:
            return {}
        key = f"extract_conditions.kinds.{self.kind}"
        if not self.folder.is_dir():
            raise DistilleryError(f"{key}: {self.folder} is no folder; name the one with your maps")
        files: dict[str, Path] = {}
        for path in sorted(p for p in walk_files(self.folder) if p.suffix.lower() in SUFFIXES):
            stem = _plain(path.relative_to(self.folder).with_suffix("").as_posix())
            if stem in files:
                raise DistilleryError(f"{path}: {files[stem].name} has the same name; keep one")
            files[stem] = path
        if not files:
            raise DistilleryError(f"{key}: no images in {self.folder} ({', '.join(SUFFIXES)})")
        return files

    def state(self) -> str:
        """A short hash of the folder's listing: what was read of another one is not used again."""
        stats = {stem: path.stat() for stem, path in self.files.items()}
        return hash_json({n: [s.st_size, s.st_mtime_ns] for n, s in stats.items()})[:8]

    def read(self, row: Mapping[str, Any], height: int, width: int) -> np.ndarray:
        """The map of a curated row, uint8 (H, W, 3), as large as its image.

        8 and 16 bits, grey or colours; 16 bits are scaled, not clipped. Raises LeftOut for a record
        without a map, or with one that can't be used.
        """
        import cv2
        import numpy as np

        pixels, place = self._pixels(row)
        if pixels.shape[:2] == (height, width):
            return np.ascontiguousarray(pixels)
        if self.resize is None:
            own, asked = f"{pixels.shape[1]} x {pixels.shape[0]}", f"{width} x {height}"
            raise LeftOut(SIZE, f"{place}: {own} px, its image {asked}")
        how = cv2.INTER_NEAREST if self.resize == "nearest" else cv2.INTER_AREA
        return cv2.resize(pixels, (width, height), interpolation=how)

    def has_size(self, row: Mapping[str, Any], height: int, width: int) -> bool:
        """Whether a row's map has this size as it is; LeftOut for a record without one."""
        return self._pixels(row)[0].shape[:2] == (height, width)

    def _pixels(self, row: Mapping[str, Any]) -> tuple[np.ndarray, str]:
        """A row's map as it is, and where it is."""
        from distillery.data.images import MAP_BACKGROUND, UndecodableError, decode_rgb

        data, place = self._find(row)
        try:
            return decode_rgb(data, MAP_BACKGROUND), place
        except UndecodableError as error:
            raise LeftOut(UNREADABLE, f"{place}: {error}") from None

    def _find(self, row: Mapping[str, Any]) -> tuple[bytes, str]:
        """A row's encoded map, and where it is."""
        if self.column is not None:
            found = {m["column"]: m["bytes"] for m in row["maps"] or ()}
            if not found.get(self.column):
                raise LeftOut(MISSING, f"no map in column {self.column}")
            return found[self.column], f"column {self.column}"
        names = list(_names(row))
        path = next((self.files[name] for name in names if name in self.files), None)
        if path is None:
            raise LeftOut(MISSING, f"no {' or '.join(names)} in the folder{self._alike(names)}")
        try:
            return path.read_bytes(), path.relative_to(self.folder).as_posix()
        except OSError as error:
            raise LeftOut(UNREADABLE, f"{path.name}: {error.strerror}") from None

    def _alike(self, names: Collection[str]) -> str:
        """A file that would be the map but for case, folder or format, for the message."""
        for name in (name.casefold() for name in names):
            if name in self._others:
                return f"; {self._others[name]} is no image file ({', '.join(SUFFIXES)})"
            if name in self._folded:
                return f"; {self._folded[name].name} differs in upper and lower case"
            if (base := name.rpartition("/")[2]) in self._bases:
                place = self._bases[base].relative_to(self.folder).as_posix()
                return f"; {place} lies in another folder than the image"
            if name in self._affixed:
                return f"; {self._affixed[name].name} has more in its name: rename such maps"
        return ""

    @cached_property
    def _folded(self) -> dict[str, Path]:
        return {stem.casefold(): path for stem, path in self.files.items()}

    @cached_property
    def _bases(self) -> dict[str, Path]:
        return {stem.rpartition("/")[2]: path for stem, path in self._folded.items()}

    @cached_property
    def _affixed(self) -> dict[str, Path]:
        """Files by their path without what is before or behind a separator: `kite_depth`."""
        found: dict[str, Path] = {}
        for stem, path in self._folded.items():
            folder, slash, base = stem.rpartition("/")
            for cut in _SEPARATORS.finditer(base):
                for part in (base[: cut.start()], base[cut.end() :]):
                    found.setdefault(f"{folder}{slash}{part}", path)
        return found

    @cached_property
    def _others(self) -> dict[str, str]:
        """Names of files that are no images, such as arrays, by their path without suffix."""
        paths = (p for p in walk_files(self.folder) if p.suffix.lower() not in SUFFIXES)
        return {
            _plain(p.relative_to(self.folder).with_suffix("").as_posix()).casefold(): p.name
            for p in paths
            if p.suffix and p.is_file()
        }


def _plain(name: str) -> str:
    """The name as most systems write it: macOS stores an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def _names(row: Mapping[str, Any]) -> Iterable[str]:
    """What a record's map may be called: its file's name, then its key.

    Not by the key where the file is called by a number itself, which may be another record's key.
    """
    if row.get("name"):
        yield _plain(row["name"])
    if not (row.get("name") or "").isdigit():
        yield row["key"]
