"""Reads parquet files that hold encoded images, as Hugging Face datasets store them.

In: a parquet file or a folder of them. Out: `RawSample`s. The image column is the one named
`image` (or the only one) of type struct{bytes, path} or binary; the caption column is any of
`readers.CAPTION_NAMES`, in any case. Images given as a path only are not followed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.errors import DamagedError, DistilleryError
from distillery.data.ingest.sample import (
    CAPTION_NAMES,
    SUCCESS,
    RawSample,
    find_caption,
    find_metadata,
    list_inputs,
)

_BATCH_SAMPLES = 64
_SEGMENTATION = "segmentation"
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes")


def read_parquet(path: Path) -> Iterator[RawSample]:
    """Rows of all files in order, a batch of 64 in memory at a time."""
    for file in list_inputs(path, "parquet"):
        try:
            with pq.ParquetFile(file) as table:
                image = _image_column(file, table.schema_arrow)
                _require_caption(file, table.schema_arrow)
                row_number = 0
                for batch in table.iter_batches(_BATCH_SAMPLES):
                    for row in batch.to_pylist():
                        yield _as_sample(row, image, file.name, row_number)
                        row_number += 1
        except (OSError, pa.ArrowInvalid) as error:
            raise DamagedError(
                f"{file}: not readable as parquet ({error}); fetch or write it again"
            ) from None


def _image_column(file: Path, schema: pa.Schema) -> str:
    found = [f.name for f in schema if _holds_image(f.type) and f.name.lower() != _SEGMENTATION]
    named = [name for wanted in _IMAGE_NAMES for name in found if name.lower() == wanted]
    if named or len(found) == 1:
        return (named or found)[0]
    what = f"several image columns ({', '.join(found)})" if found else "no image column"
    urls_only = not found and any(name.lower() == "url" for name in schema.names)
    remedy = (
        "download them with ingest.source urls"
        if urls_only
        else "name the one with the image bytes 'image'"
    )
    raise DistilleryError(f"{file}: {what} among {', '.join(schema.names)}; {remedy}")


def _holds_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _require_caption(file: Path, schema: pa.Schema) -> None:
    if not any(name.lower() in CAPTION_NAMES for name in schema.names):
        raise DistilleryError(
            f"{file}: no caption column among {', '.join(schema.names)}; "
            f"name it one of {', '.join(CAPTION_NAMES)}"
        )


def _as_sample(row: dict[str, Any], image_column: str, source: str, number: int) -> RawSample:
    image = row.pop(image_column)
    path = None
    if isinstance(image, dict):
        image, path = image.get("bytes"), image.get("path")
    segmentation = row.pop(_SEGMENTATION, None)
    return RawSample(
        key=str(number),
        source=source,
        image=image,
        suffix=Path(path).suffix.lstrip(".").lower() if path else "",
        caption=find_caption(row),
        metadata=find_metadata(row),
        segmentation=segmentation if isinstance(segmentation, bytes) else None,
        status=SUCCESS if image is not None else "no image bytes in the row",
    )
