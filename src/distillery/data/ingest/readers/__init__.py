"""Samples from wherever images and captions come from, one at a time.

In: a source name and a path. Out: `RawSample`s in a fixed order (file names sorted, rows as they
are stored), with the image's original bytes. Nothing is decoded, filtered or written here, and tar
members are streamed, never extracted.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distillery.core.errors import DistilleryError
from distillery.data.ingest.readers.folder import read_folder
from distillery.data.ingest.readers.parquet import read_parquet
from distillery.data.ingest.readers.tar import read_webdataset
from distillery.data.ingest.sample import RawSample

_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[RawSample]]] = {
    "webdataset": read_webdataset,
    "parquet": read_parquet,
    "folder": lambda path, _: read_folder(path),
}


def read_source(source: str, path: Path, map_columns: Sequence[str] = ()) -> Iterator[RawSample]:
    """All samples of a `webdataset`, `parquet` or `folder` source, with these columns of maps.

    Pictures without a caption are counted on standard error. Raises DistilleryError naming the file
    where it is missing, empty, cut short or damaged.
    """
    if not path.exists():
        raise DistilleryError(f"{path}: not found; set ingest.path to your {source} data")
    num_samples, num_bare, first = 0, 0, ""
    for sample in _READERS[source](path, map_columns):
        num_samples += 1
        if sample.image and not sample.caption:
            num_bare += 1
            first = first or f"{sample.source}: {sample.key}"
        yield sample
    if num_samples == 0:
        raise DistilleryError(f"{path}: holds no samples; check ingest.path and ingest.source")
    if num_bare:
        print(
            f"ingest: {num_bare} of {num_samples} pictures have no caption, first {first}",
            file=sys.stderr,
        )
