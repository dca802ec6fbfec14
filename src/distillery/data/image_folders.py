"""Folders of images and their captions.

In: folders of image files or of this project's shards, a file of captions. Out: images of the same
name, a few at a time, captions in their order. Broken, missing and differently sized files are an
error that lists them all. Not here: metrics.
"""

import csv
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillery.core.errors import DistilleryError
from distillery.core.shards import read_table_shard
from distillery.data.images import MAP_BACKGROUND, UndecodableError, decode_rgb
from distillery.data.pictures import slices
from distillery.data.quotes import Remembered

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SHARDS = "[0-9]*.parquet"
MAX_LISTED = 20
MAPS = "maps"  # the role of condition maps


class Matched:
    """Files of the same names in a folder of images and in further `folders`, by their role.

    Images are read a few at a time; what is wrong with any file is an error once all were looked
    at. `on_image` hears of every file read.
    """

    def __init__(
        self,
        images: Path,
        folders: Mapping[str, Path],
        on_image: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._own, self._on_image = list_images(images), on_image
        self._files = {role: list_images(folder) for role, folder in folders.items()}
        self._problems: list[str] = []
        names = set(self._own)
        for role, folder in folders.items():
            other = set(self._files[role])
            lost, odd = sorted(set(self._own) - other), sorted(other - set(self._own))
            self._problems += [f"{images}/{name}: not in {folder}" for name in lost]
            self._problems += [f"{folder}/{name}: not in {images}" for name in odd]
            names &= other
        self.names: list[str] = sorted(names)

    def groups(self, size: int) -> Iterator[tuple[list[int], np.ndarray, dict[str, np.ndarray]]]:
        """(places, images, {role: images}) of at most `size` equally large images, uint8
        [n, H, W, 3]; a place is an index of `names`.

        Raises DistilleryError at the end, for all unmatched, broken and differently sized files;
        after the first of them nothing more is given, but all are looked at.
        """
        for part in slices(len(self.names), size):
            loaded = {i: self._load(self.names[i]) for i in range(part.start, part.stop)}
            if not self._problems:
                yield from _by_size(loaded)
        _refuse(self._problems)

    def _load(self, name: str) -> dict[str, np.ndarray]:
        """{role: image}, the images' own role is ""; what is wrong joins the problems."""
        files = {"": self._own[name], **{role: f[name] for role, f in self._files.items()}}
        loaded = {}
        for role, path in files.items():
            try:
                background = MAP_BACKGROUND if role == MAPS else "white"
                loaded[role] = decode_rgb(path.read_bytes(), background)
            except (UndecodableError, OSError) as error:
                self._problems.append(f"{path}: broken: {error}")
            self._on_image(1)
        if "" in loaded:
            own = loaded[""].shape
            self._problems += [
                f"{files['']}: {own[:2]}, {role} {image.shape[:2]}"
                for role, image in loaded.items()
                if image.shape != own
            ]
        return loaded


def _by_size(
    loaded: Mapping[int, Mapping[str, np.ndarray]],
) -> Iterator[tuple[list[int], np.ndarray, dict[str, np.ndarray]]]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, images in loaded.items():
        sizes.setdefault(images[""].shape, []).append(place)
    for places in sizes.values():
        roles = list(loaded[places[0]])
        stacked = {role: np.stack([loaded[place][role] for place in places]) for role in roles}
        yield places, stacked.pop(""), stacked


@dataclass(frozen=True)
class Stored:
    """An image in a shard, which reads like a file."""

    shard: Path
    key: str

    def read_bytes(self) -> bytes:
        """As it is encoded."""
        return _images_of(self.shard)[self.key]

    def __str__(self) -> str:
        return f"{self.shard}: {self.key}"


@functools.lru_cache(maxsize=4)
def _images_of(shard: Path) -> dict[str, bytes]:
    return {row["key"]: row["image"]["bytes"] for row in read_table_shard(shard)}


def list_images(folder: Path) -> dict[str, Path | Stored]:
    """{name without suffix: file}, or {key: image} of shards such as `samples/unet/elr`.

    Raises DistilleryError for two files of one name, for none at all, and for a folder with images
    of several training seeds.
    """
    if not folder.is_dir():
        raise DistilleryError(f"{folder}: no folder; give one with images")
    if shards := sorted(_of_one_seed(folder).glob(SHARDS)):
        keys = ((row["key"], shard) for shard in shards for row in read_table_shard(shard, ["key"]))
        return {key: Stored(shard, key) for key, shard in keys}
    files: dict[str, Path | Stored] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        name = os.fsencode(path.stem).decode("utf-8", "backslashreplace")  # JSON holds no others
        if name in files:
            raise DistilleryError(f"{path}: {files[name].name} has the same name; keep one")
        files[name] = path
    if not files:
        raise DistilleryError(f"{folder}: no images ({', '.join(SUFFIXES)}) and no shards")
    return files


def _of_one_seed(folder: Path) -> Path:
    """The folder itself, or its one `seed-<n>`."""
    seeds = sorted(folder.glob("seed-*"))
    if len(seeds) > 1:
        raise DistilleryError(f"{folder}: images of {len(seeds)} training seeds; give {seeds[0]}")
    return seeds[0] if seeds else folder


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        listed = [*problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            listed.append(f"and {len(problems) - MAX_LISTED} more")
        raise DistilleryError(
            "\n".join([*listed, f"{len(problems)} files do not pair up; mend or remove them"])
        )


def read_prompts(path: Path, names: Sequence[str]) -> list[str]:
    """Captions of the named images from a JSON object or a CSV; a missing one is an error."""
    captions = load_prompts(path)
    if lost := [name for name in names if name not in captions]:
        raise DistilleryError(f"{path}: no prompt for {lost[0]} ({len(lost)} in all)")
    return [captions[name] for name in names]


def load_prompts(path: Path) -> dict[str, str]:
    """{name without suffix: caption} of a JSON object {name: text} or a CSV file_name,text."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before it
        if path.suffix.lower() == ".json":
            rows = json.loads(text).items()
        else:
            rows = _csv_prompts(path, text)
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise DistilleryError(
            f"{path}: no prompts ({_why(error)}); give JSON {{name: text}} or CSV file_name,text"
        ) from None
    if not rows:
        raise DistilleryError(f"{path}: holds no prompts; give at least one")
    captions: dict[str, str] = {}
    for given, caption in rows:
        name = _without_suffix(given or "")
        if not (name and isinstance(caption, str)):
            raise DistilleryError(f"{path}: {name or 'a row without name'}: no text; give a prompt")
        if captions.setdefault(name, caption) != caption:
            raise DistilleryError(f"{path}: {name} has two prompts; keep one")
    return captions


def _csv_prompts(path: Path, text: str) -> list[tuple[str, str]]:
    """Rows of one line each: in a text of several, a stray quote may have swallowed other rows."""
    lines = Remembered(text.splitlines())
    reader, rows = csv.DictReader(lines, strict=True), []
    _ = reader.fieldnames
    lines.take()
    for row in reader:
        if (num := len(lines.take())) > 1:
            raise DistilleryError(
                f"{path}:{reader.line_num - num + 1}: a text of several lines; close its quote, or "
                "write it on one line"
            )
        rows.append((row["file_name"], row["text"]))
    return rows


def _without_suffix(name: str) -> str:
    """The name of an image's file, or one that is given without suffix, such as `v1.5`."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no column {error.args[0]}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, AttributeError):
        return "no JSON object"
    return getattr(error, "strerror", None) or str(error)
