"""Files of a folder by the names that texts and tables call them by.

In: a picture, or a folder and a name in it. Out: the file. Other systems write names in other case,
and accents in another form (a Mac's are decomposed): where only one file is alike, it is meant.
Nothing is read here.
"""

import functools
import itertools
import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from distillery.data.ingest.sample import PICTURE_SUFFIXES, split_suffix

SIDECARS = (".txt", ".caption", ".json")
_MAX_EMPTY_BYTES = 8  # of line ends and marks
_ADDRESS = re.compile(rf"(.+)\.(?:{'|'.join(PICTURE_SUFFIXES)})[?!;:@#&]", re.IGNORECASE)


def sidecar_of(image: Path) -> Path | None:
    """The text of `a.jpg`: `a.txt` or `a.jpg.txt`; of `a.jpg.1`, `a.jpg?v=1.5` also `a.txt`.

    An empty one counts only where no other is there.
    """
    empty = None
    stems = [image.stem, image.name]
    if (inner := split_suffix(image.stem))[1] in PICTURE_SUFFIXES:
        stems.append(inner[0])
    elif address := _ADDRESS.match(image.name):
        stems.append(address[1])
    for suffix, stem in itertools.product(SIDECARS, stems):
        found = _child(image.parent, f"{stem}{suffix}")
        if found.is_file() and _composed(found.stem) == _composed(stem):
            if found.stat().st_size > _MAX_EMPTY_BYTES or found.read_bytes().strip():
                return found
            empty = empty or found
    return empty


def find_file(folder: Path, name: str) -> Path:
    """`folder / name`, or the only file named so but for case and the form of accents."""
    return functools.reduce(_child, name.split("/"), folder)


def _child(folder: Path, name: str) -> Path:
    if os.path.lexists(folder / name):
        return folder / name
    alike = _alike(folder).get(_composed(name).casefold().strip(), [])
    return folder / (alike[0] if len(alike) == 1 else name)


@functools.lru_cache(maxsize=4)
def _alike(folder: Path) -> dict[str, list[str]]:
    """Names in a folder by what is alike in them."""
    names = defaultdict(list)
    for name in os.listdir(folder) if folder.is_dir() else ():
        names[_composed(name).casefold().strip()].append(name)
    return names


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
