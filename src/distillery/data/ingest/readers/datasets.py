"""Reads whatever Hugging Face `datasets` reads: a local folder or file, or a hub id.

In: where it lies, its split and the names of the image and caption columns. Out: `RawSample`s, one
row in memory at a time, with the image's own bytes; pixels that were stored as such become PNG. A
row without an image is counted as failed. No code of a data set is run, and of paths in its rows
only those below its own folder, or on the hub, are followed.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distillery.core.errors import DistilleryError, kind_and_reason
from distillery.data.ingest.readers.datasets_open import open_data_set
from distillery.data.ingest.readers.folder_tables import FILE_COLUMN, is_file_name
from distillery.data.ingest.readers.maps import name_of, require_columns, with_maps
from distillery.data.ingest.sample import (
    MAX_IMAGE_BYTES,
    METADATA_NAMES,
    SUCCESS,
    RawSample,
    find_metadata,
    make_sample,
    split_suffix,
)
from distillery.data.ingest.text import normalise_caption
from distillery.data.quotes import require_closed_tables

_SEGMENTATION = "segmentation"


def read_datasets(
    path: str,
    *,
    image_column: str,
    caption_column: str,
    split: str,
    map_columns: Sequence[str] = (),
) -> Iterator[RawSample]:
    """Rows of one split in order, with these columns of condition maps.

    Raises DistilleryError in one line where there is no such data set, split or column.
    """
    require_closed_tables(Path(path), (image_column, FILE_COLUMN), is_file_name)
    opened = open_data_set(path, split)
    data = opened.data
    columns = _columns(data, path)
    for key, name in (("image_column", image_column), ("caption_column", caption_column)):
        if name not in columns:
            raise DistilleryError(
                f"{path}: no column {name} in split {split}, which has {', '.join(columns)}; "
                f"correct ingest.datasets.{key}"
            )
    require_columns(path, columns, map_columns)
    if image_column in map_columns:
        raise DistilleryError(
            f"{path}: {image_column} is the image's column; leave it out of ingest.map_columns"
        )
    used = [c for c in columns if c.lower() in (*METADATA_NAMES, _SEGMENTATION)]
    wanted = [image_column, caption_column, *used, *map_columns]
    data = data.select_columns(list(dict.fromkeys(wanted)))
    data, labels = _undecoded(data), _label_names(data, caption_column)
    num_rows = 0
    for number, row in enumerate(_rows(data, path)):
        caption = row[caption_column]
        maps = {name: _image_bytes(row.pop(name), path)[0] for name in map_columns}
        sample = _as_sample(
            row.pop(image_column),
            labels[caption] if labels and isinstance(caption, int) else caption,
            row,
            path,
            number,
        )
        yield with_maps(sample, maps)
        num_rows = number + 1
    opened.tell_left_out(path, num_rows)


def _columns(data: Any, path: str) -> list[str]:
    return list(data.column_names or next(_rows(data, path), {}))


def _undecoded(data: Any) -> Any:
    """Images as the bytes that they were stored as."""
    import datasets

    for name, feature in (data.features or {}).items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    return data


def _label_names(data: Any, column: str) -> list[str] | None:
    """What the numbers of a column of class labels stand for."""
    return getattr((data.features or {}).get(column), "names", None)


def _rows(data: Any, path: str) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        for row in data:
            yield dict(row)
            number += 1
    except Exception as error:  # a builder meets a damaged file, or the network ends
        why = kind_and_reason(error)[:200]
        raise DistilleryError(
            f"{path}: row {number} is not readable ({why}); mend or fetch it again"
        ) from None


def _as_sample(value: Any, caption: Any, row: dict[str, Any], path: str, number: int) -> RawSample:
    image, name = _image_bytes(value, path)
    segmentation = _image_bytes(row.pop(_SEGMENTATION, None), path)[0]
    status = SUCCESS if image else "no image bytes in the row"
    if image and len(image) > MAX_IMAGE_BYTES:
        image, status = None, f"{len(image)} bytes is over {MAX_IMAGE_BYTES}"
    return make_sample(
        lambda: normalise_caption(caption),
        key=str(number),
        source=Path(path).name,
        image=image,
        suffix=split_suffix(name)[1],
        metadata=find_metadata(row),
        segmentation=segmentation,
        status=status,
        name=name_of(name),
    )


def _image_bytes(value: Any, path: str) -> tuple[bytes | None, str]:
    """(encoded image or None, its name) of whatever stands in an image column."""
    if isinstance(value, bytes):
        return value or None, ""
    if isinstance(value, Mapping):
        name = str(value.get("path") or "")
        return value.get("bytes") or _follow(name, Path(path)), name
    if isinstance(value, Image.Image):
        return _as_png(value), ".png"
    pixels = np.asarray(value) if isinstance(value, list | np.ndarray) else None
    if pixels is None or pixels.ndim not in (2, 3) or not _is_8_bit(pixels):
        return None, ""
    return _as_png(Image.fromarray(pixels.astype(np.uint8))), ".png"


def _is_8_bit(pixels: np.ndarray) -> bool:
    whole = np.issubdtype(pixels.dtype, np.integer) and pixels.size > 0
    return bool(whole and pixels.min() >= 0 and pixels.max() < 256)


def _follow(name: str, folder: Path) -> bytes | None:
    """The file that a row names, if it lies below the data set's folder or on the hub."""
    if name.startswith("hf://") or "::hf://" in name:
        import fsspec

        with fsspec.open(name, "rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    file = Path(name)
    is_inside = folder.is_dir() and file.resolve().is_relative_to(folder.resolve())
    return file.read_bytes() if name and is_inside and file.is_file() else None


def _as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
