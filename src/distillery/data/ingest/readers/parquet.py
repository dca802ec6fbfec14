"""Reads parquet files that hold encoded images, as Hugging Face datasets store them.

In: a parquet file or a folder of them. Out: `RawSample`s. The image column is the one named
`image` (or the only one) of type struct{bytes, path} or binary; the caption column is any of
`readers.CAPTION_NAMES`, in any case. Images given as a path only are not followed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from distillery.core.errors import DamagedError, DistilleryError
from distillery.data.ingest.readers.maps import map_bytes, name_of, require_columns, with_maps
from distillery.data.ingest.readers.rows import open_parquet, rows_of
from distillery.data.ingest.sample import (
    CAPTION_NAMES,
    MAX_IMAGE_BYTES,
    READ_NAMES,
    SUCCESS,
    RawSample,
    find_caption,
    find_metadata,
    list_inputs,
    make_sample,
    split_suffix,
)

_BATCH_SAMPLES = 16
_SEGMENTATION = "segmentation"
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes")


def read_parquet(path: Path, map_columns: Sequence[str] = ()) -> Iterator[RawSample]:
    """Rows of all files in order, a batch of 16 in memory at a time, with these columns of maps."""
    for file in list_inputs(path, "parquet"):
        try:
            with open_parquet(file) as table:
                image = _image_column(file, table.schema_arrow, map_columns)
                require_columns(file, table.schema_arrow.names, map_columns)
                _require_images(file, table.schema_arrow, map_columns)
                _require_caption(file, table.schema_arrow)
                row_number = 0
                used = [image, *_used_columns(table.schema_arrow.names), *map_columns]
                for batch in table.iter_batches(_BATCH_SAMPLES, columns=list(dict.fromkeys(used))):
                    for i in range(batch.num_rows):  # one at a time: pictures are large
                        (row,) = rows_of(batch.slice(i, 1))
                        maps = {n: map_bytes(row.pop(n)) for n in map_columns}
                        sample = _as_sample(row, image, file.name, row_number)
                        yield with_maps(sample, maps)
                        row_number += 1
        except (OSError, pa.ArrowException) as error:
            raise DamagedError(
                f"{file}: not readable as parquet ({error}); fetch or write it again"
            ) from None


def _used_columns(names: Sequence[str]) -> list[str]:
    """Columns that are read beside the image; the others may hold what no Python value is."""
    return [name for name in names if name.lower() in (_SEGMENTATION, *READ_NAMES)]


def _image_column(file: Path, schema: pa.Schema, map_columns: Sequence[str]) -> str:
    columns = [f.name for f in schema if _may_hold_image(f) and f.name not in map_columns]
    named = [name for wanted in _IMAGE_NAMES for name in columns if name.lower() == wanted]
    chosen = (named or columns)[:1]
    if len(columns) != len(set(columns)):  # of which one would be read
        raise DistilleryError(f"{file}: two columns {chosen[0]}; keep one of them")
    if named or len(columns) == 1:
        return chosen[0]
    what = f"several image columns ({', '.join(columns)})" if columns else _no_image(schema)
    urls_only = not columns and any(name.lower() == "url" for name in schema.names)
    remedy = (
        "download them with ingest.source urls"
        if urls_only
        else "name the one with the image bytes 'image'"
    )
    raise DistilleryError(f"{file}: {what} among {', '.join(schema.names)}; {remedy}")


def _no_image(schema: pa.Schema) -> str:
    """What a column that is named like one of images holds instead."""
    odd = next((f for f in schema if f.name.lower() in _IMAGE_NAMES), None)
    return "no image column" if odd is None else f"column {odd.name} holds {odd.type}, not bytes,"


def _may_hold_image(column: pa.Field) -> bool:
    return _holds_image(column.type) and column.name.lower() not in (_SEGMENTATION, *CAPTION_NAMES)


def _holds_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _holds_image(kind.value_type)
    kinds = (
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return any(is_kind(kind) for is_kind in kinds)


def _require_images(file: Path, schema: pa.Schema, map_columns: Sequence[str]) -> None:
    for column in (schema.field(name) for name in map_columns):
        if not (_holds_image(column.type) or pa.types.is_null(column.type)):
            raise DistilleryError(
                f"{file}: column {column.name} of ingest.map_columns holds {column.type}, no "
                "encoded images; name another, or take maps from files: extract_conditions.kinds: "
                "{KIND: {from: folder PATH}}"
            )


def _require_caption(file: Path, schema: pa.Schema) -> None:
    columns = [field for field in schema if field.name.lower() in CAPTION_NAMES]
    if not columns:
        raise DistilleryError(
            f"{file}: no caption column among {', '.join(schema.names)}; "
            f"name it one of {', '.join(CAPTION_NAMES)}"
        )
    if len({column.name.lower() for column in columns}) < len(columns):
        raise DistilleryError(
            f"{file}: columns {', '.join(c.name for c in columns)} differ in case only; keep one"
        )
    for column in columns:
        if not holds_text(column.type):
            raise DistilleryError(
                f"{file}: column {column.name} holds {column.type}, not text; write one text a row"
            )


def holds_text(kind: pa.DataType) -> bool:
    """Whether a column can be captions: text, bytes of text, or a list of such."""
    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return holds_text(kind.value_type) and not pa.types.is_nested(kind.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    data = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)
    return any(is_kind(kind) for is_kind in (*text, *data))


def _as_sample(row: dict[str, Any], image_column: str, source: str, number: int) -> RawSample:
    image = row.pop(image_column)
    path = None
    if isinstance(image, dict):
        image, path = image.get("bytes"), image.get("path")
    segmentation = row.pop(_SEGMENTATION, None)
    has_image = isinstance(image, bytes)
    status = SUCCESS if has_image else "no image bytes in the row"
    if has_image and len(image) > MAX_IMAGE_BYTES:
        image, status = None, f"{len(image)} bytes is over {MAX_IMAGE_BYTES}"
    return make_sample(
        lambda: find_caption(row),
        key=str(number),
        source=source,
        image=image if has_image else None,
        suffix=split_suffix(path)[1] if isinstance(path, str) else "",
        metadata=find_metadata(row),
        segmentation=segmentation if isinstance(segmentation, bytes) else None,
        status=status,
        name=name_of(path),
    )
