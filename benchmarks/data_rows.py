"""Rows and files as a user's data, of any number.

In: a number of rows and a place. Out: curated parts by the project's own writer, of one tiny JPEG
with random hashes and sketches, every hundredth row a copy of another; and a folder, a table, a tar
and a parquet file of as many small pictures. Not here: lists of URLs, which `column_filters` draws.
"""

import io
import itertools
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dedupe import random_sketches

from distillery.core.shards import image_type, open_table_shard, shard_name

SHARD_ROWS = 4096
_COMMENT_BYTES = 1024


def curated_rows(num_rows: int) -> Iterator[dict[str, Any]]:
    """Rows whose hashes and sketches are random, but for copies."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", cv2.resize(pixels, (64, 64)))[1].tobytes()
    for start in range(0, num_rows, SHARD_ROWS):
        num = min(SHARD_ROWS, num_rows - start)
        hashes, sketches = rng.integers(0, 2**64, num, dtype=np.uint64), random_sketches(num, rng)
        for row in range(num):
            source = row - row % 50 if row % 100 == 99 else row
            number = start + row
            yield {
                "key": f"{number:010d}", "image": {"bytes": jpeg, "path": f"{number}.jpg"},
                "caption": f"a caption of some words, number {number}", "width": 64, "height": 64,
                "url": f"https://img.example.org/some/folder/picture-{number}.jpg",
                "similarity": 0.3, "punsafe": 0.1, "pwatermark": 0.1, "aesthetic": 6.0,
                "sha256": f"{number:064x}", "md5": f"{number:032x}",
                "phash": f"{int(hashes[source]):016x}", "sketch": sketches[source].tobytes(),
                "num_bytes": len(jpeg), "planted": None, "segmentation": None,
                "name": str(number), "maps": [],
            }  # fmt: skip


def pictures(num_rows: int) -> Iterator[tuple[str, bytes, str]]:
    """(name, JPEG, caption): a noise of 64 px, told apart by a comment, so that all are kept.

    The comment is a kilobyte at random: what can be compressed hides what is held in memory.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()
    for number in range(num_rows):
        comment = b"\xff\xfe" + (_COMMENT_BYTES + 2).to_bytes(2) + rng.bytes(_COMMENT_BYTES)
        yield f"{number:08d}", jpeg[:2] + comment + jpeg[2:], f"a kite of the number {number}"


def write_folder(folder: Path, num_rows: int) -> None:
    for name, jpeg, caption in pictures(num_rows):
        below = folder / name[:5]
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{name}.jpg").write_bytes(jpeg)
        (below / f"{name}.txt").write_text(caption)


def write_table(folder: Path, num_rows: int) -> None:
    """The pictures of `write_folder`, listed in one metadata.csv."""
    folder.mkdir()
    (folder / "pictures").symlink_to("../folder")
    with (folder / "metadata.csv").open("w") as file:
        file.write("file_name,text\n")
        for name, _, caption in pictures(num_rows):
            file.write(f"pictures/{name[:5]}/{name}.jpg,{caption}\n")


def write_tar(path: Path, num_rows: int) -> None:
    """All in one tar."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, jpeg, caption in pictures(num_rows):
            for suffix, data in (("jpg", jpeg), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


_SCHEMA = pa.schema([("image", image_type()), ("text", pa.string())])


def tables(num_rows: int) -> Iterator[pa.Table]:
    """All pictures as Hugging Face stores them."""
    rows = pictures(num_rows)
    while block := list(itertools.islice(rows, SHARD_ROWS)):
        images = [{"bytes": jpeg, "path": f"{name}.jpg"} for name, jpeg, _ in block]
        texts = [caption for *_, caption in block]
        yield pa.table({"image": images, "text": texts}, _SCHEMA)


def write_parquet(path: Path, num_rows: int) -> None:
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for table in tables(num_rows):
            writer.write_table(table)


def write_group(path: Path, num_rows: int) -> None:
    """All in one row group."""
    pq.write_table(pa.concat_tables(tables(num_rows)), path)


def write_datasets(folder: Path, num_rows: int) -> None:
    """A folder with one parquet file."""
    folder.mkdir()
    write_parquet(folder / "train.parquet", num_rows)


def write_saved(folder: Path, num_rows: int) -> None:
    """What `Dataset.save_to_disk` writes."""
    from datasets import Dataset, Image

    with tempfile.TemporaryDirectory() as cache:
        write_datasets(Path(cache) / "rows", num_rows)
        data = Dataset.from_parquet(str(Path(cache) / "rows/train.parquet"), cache_dir=cache)
        data.cast_column("image", Image()).save_to_disk(folder)


SOURCES = {
    "folder": write_folder, "table": write_table, "tar": write_tar, "parquet": write_parquet,
    "group": write_group, "datasets": write_datasets, "saved": write_saved,
}  # fmt: skip


def write_curated(folder: Path, num_rows: int) -> None:
    from distillery.data.curation.curate import CURATED_SCHEMA, finish_part

    rows = curated_rows(num_rows)
    for index in range(-(-num_rows // SHARD_ROWS)):
        with open_table_shard(folder / "0" / shard_name(index, "parquet"), CURATED_SCHEMA) as add:
            for _, row in zip(range(SHARD_ROWS), rows, strict=False):
                add(row)
    finish_part(folder / "0", {})
